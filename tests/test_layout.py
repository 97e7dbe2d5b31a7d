"""The shape of the house: which way imports point, and what is imported when."""

import ast
import subprocess
import sys

import pytest
from conftest import CHECKOUT

PACKAGES = ("datasets", "pretrained", "finetune", "export")  # each may import itself and those before it
SOURCES = [path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py")]


def imported_packages(path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_imports_point_up(path):
    own = path.relative_to(CHECKOUT).parts[0]
    below = set(PACKAGES[PACKAGES.index(own) + 1 :])
    assert not imported_packages(path) & below


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=lambda path: path.parent.name)
def test_init_files_are_a_docstring_only(path):
    (only,) = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(only, ast.Expr) and isinstance(only.value.value, str)


@pytest.mark.parametrize(
    "command",
    [
        ["finetune", "--help"],
        ["finetune", "run", "--help"],
        ["export", "--help"],
        ["finetune", "predict", "--help"],
        ["finetune", "compare", "--help"],
        ["datasets", "--help"],
        ["export", "serve", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(command):
    code = (
        "import runpy, sys\n"
        f"sys.argv = {command!r}\n"
        "try:\n runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'mindspore', 'numpy', 'PIL', 'matplotlib', 'sklearn', 'yaml', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m" in done.stdout
