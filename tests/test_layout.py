"""The shape of the house: which way imports point, and what is imported when."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT

PACKAGES = ("datasets", "pretrained", "finetune", "export")  # each may import itself and those before it
ROOMS = {  # of a package, wings and files beside them: each may import those before it
    "finetune": ("storage", "workers", "features", "layers", "training", "heads", "evaluation", "insight"),
    "export": ("standalone", "writers", "predictors", "verdict", "parity", "golden", "bundle", "serving"),
}
MOST_FILES = 14  # in a folder; more are two wings
SOURCES = sorted(path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))


def module_of(path: Path, root: Path = CHECKOUT) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(source: str, modules: set[str]) -> set[str]:
    """Of `modules`, those that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & modules


def room_of(module: str) -> tuple[str, str]:
    """(package, wing or file beside the wings)."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def wrong_arrows(sources: dict[str, str]) -> list[str]:
    """What points the wrong way in {module: its text}: between packages, between rooms in order, and in circles."""
    arrows = {module: imported_modules(text, set(sources)) for module, text in sources.items()}
    wrong, between_rooms = [], {}
    for module, targets in arrows.items():
        package, room = room_of(module)
        for target in targets:
            other_package, other_room = room_of(target)
            if PACKAGES.index(other_package) > PACKAGES.index(package):
                wrong.append(f"{module} -> {target}")
            elif other_package == package and other_room not in ("", room):
                order = ROOMS.get(package, ())
                if {room, other_room} <= set(order) and order.index(other_room) > order.index(room):
                    wrong.append(f"{module} -> {target}")
                between_rooms.setdefault((package, room), set()).add((package, other_room))
    for graph in (arrows, between_rooms):
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            wrong.append(f"in a circle: {error.args[1]}")
    return wrong


def read_sources() -> dict[str, str]:
    return {module_of(path): path.read_text(encoding="utf-8") for path in SOURCES}


def test_imports_point_up():
    assert not wrong_arrows(read_sources())


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("datasets.image", "import finetune.config"),
        ("pretrained.weights", "def f():\n    from finetune.metrics import accuracy"),
        ("finetune.features.cache", "from finetune.training import trainer"),
        ("finetune.training.trainer", "def f():\n    from finetune.evaluation.report import write"),
        ("finetune.metrics", "from finetune.evaluation.evaluate import evaluate"),  # a circle by way of evaluation
        ("export.writers.mindir", "from export.parity import compare"),
        ("export.bundle", "from export.serving.server import serve"),
        ("finetune.storage.store", "from finetune.features.cache import extract"),  # a circle inside a wing
    ],
)
def test_an_import_turned_round_is_found(module, line):
    sources = read_sources()
    sources[module] += f"\n{line}\n"
    assert wrong_arrows(sources)


def test_a_folder_is_one_wing():
    folders = {path.parent for name in (*PACKAGES, "benchmarks") for path in (CHECKOUT / name).rglob("*.py")}
    full = {folder.name: len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in full.items() if count > MOST_FILES} == {}


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
