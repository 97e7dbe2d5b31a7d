"""What README and docs promise is there: links, paths, commands and their flags, the same in both languages."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT

PAGES = sorted([*CHECKOUT.glob("README*.md"), *CHECKOUT.glob("docs/*.md"), CHECKOUT / "benchmarks" / "README.md"])
RECIPES = sorted(CHECKOUT.glob("finetune/configs/**/*.yaml"))
IN_CHINESE = [(page, page.with_name(f"{page.stem}_CN.md")) for page in PAGES if page.parent != CHECKOUT / "benchmarks"]
IN_CHINESE = [(page, translated) for page, translated in IN_CHINESE if not page.stem.endswith("_CN")]
FOLDERS = ("datasets", "pretrained", "finetune", "export", "tests", "benchmarks", "docs")
OF_A_RUN = r"export/([\w*]+\.(json|mindir|onnx))?"  # also a folder of a run


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def links_of(text: str) -> list[str]:
    return [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def paths_of(text: str) -> list[str]:
    found = re.findall(rf"(?<![\w/.<>-])((?:{'|'.join(FOLDERS)})/[\w./*-]*)", text)
    return [path.rstrip(".") for path in found if not re.fullmatch(OF_A_RUN, path.rstrip("."))]


def commands_of(text: str) -> list[str]:
    """Each `python -m ...` of ours, up to a comment, a quote or the next command."""
    found = re.findall(r"python -m ([^#`\n&<]+)", re.sub(r"\\\n#?\s*", " ", text))
    return [command.strip() for command in found if command.partition(".")[0].split()[0] in FOLDERS]


def called(command: str) -> tuple[tuple[str, ...], list[str]]:
    """((module, verb), flags) of a command."""
    module, *words = (word.strip("[]()") for word in command.split())
    verbs = verbs_of(module)
    verb = words[0] if words and words[0] in verbs else "run" if module == "export" else None
    flags = sorted({word.partition("=")[0] for word in words if word.startswith("--")})
    return (module, verb) if verb else (module,), flags


@functools.cache
def help_of(*call: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *call, "--help"], cwd=CHECKOUT, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, f"python -m {' '.join(call)} --help: {done.stderr}"
    return done.stdout


def verbs_of(module: str) -> set[str]:
    head, _, rest = help_of(module).partition("positional arguments:")
    return set(re.findall(r"^    (\w+)", rest, re.MULTILINE)) if "VERB" in head else set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    lost = [link for link in links_of(text) if not (page.parent / link).exists()]
    lost += [path for path in paths_of(text) if not list(CHECKOUT.glob(path.rstrip("/")))]
    assert not lost


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=name_of)
def test_commands_and_their_flags_are_known(page):
    for command in commands_of(page.read_text(encoding="utf-8")):
        call, flags = called(command)
        unknown = [flag for flag in flags if not re.search(rf"{flag}\b", help_of(*call))]
        assert not unknown, f"python -m {command}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_in_the_text_are_known(page):
    told = "".join(help_of(module, verb) for module in ("finetune", "export", "datasets") for verb in verbs_of(module))
    told += "".join(help_of(f"benchmarks.{name}") for name in ("run", "load", "recipes", "lenet", "growth", "steps"))
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    flags = re.findall(r"`[^`\n]*?(--\w+)", text)
    assert not [flag for flag in flags if not re.search(rf"{flag}\b", told)]


@pytest.mark.parametrize(("page", "translated"), IN_CHINESE, ids=[name_of(page) for page, _ in IN_CHINESE])
def test_both_languages_say_the_same(page, translated):
    english, chinese = (path.read_text(encoding="utf-8") for path in (page, translated))
    for facts in (
        lambda text: sorted(map(str, map(called, commands_of(text)))),
        lambda text: sorted(link.replace("_CN.md", ".md") for link in links_of(text) if not link.startswith("README")),
        lambda text: [len(mark) for mark in re.findall(r"^(#+) ", re.sub(r"(?s)```.*?```", "", text), re.MULTILINE)],
        lambda text: len(re.findall(r"^\|", text, re.MULTILINE)),
    ):
        assert facts(english) == facts(chinese)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[x](docs/nothing.md)", "link"),
        ("see `finetune/nothing.py`", "path"),
        ("`python -m finetune run --no_such_flag`", "flag"),
        ("python -m export RUN --dataset_path D", "flag"),
    ],
)
def test_what_is_not_there_is_found(text, wrong):
    if wrong == "link":
        assert not (CHECKOUT / links_of(text)[0]).exists()
    elif wrong == "path":
        assert not list(CHECKOUT.glob(paths_of(text)[0]))
    else:
        call, (flag,) = called(commands_of(text)[0])
        assert not re.search(rf"{flag}\b", help_of(*call))
