"""The folder of one run: numbered when it exists, and everything in it as plain files.

config.yaml, split.json, environment.json, log.txt, results.csv, metrics.json, predictions.csv,
ckpt/, novelty.npz, figures/*.png, insight/, report.html, export/. It is all that `export` gets to see of a run.
"""

from __future__ import annotations

import errno
import logging
import platform as host
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np

from datasets import files
from datasets.base import InputError
from datasets.files import write_json, write_text
from finetune.config import Config, to_yaml
from finetune.device import Device

PACKAGES = ("mindspore", "numpy", "pillow", "matplotlib", "openvino")

MOBILENETV2 = "mobilenetv2"  # what the files of a network on a backbone are called

PICTURES = Path("pictures", "eval.npy")  # of data sets that are no files

INSIGHT_SECTION = Path("insight", "section.html")  # what the report shows of it

RESULTS = ("report.html", "metrics.json")  # by which a run is known to be finished

NAME_BYTES = 200  # of a run folder, for the disks that allow 255, with room for a number

# Without these entries a file of a run is of no use.
NEEDED = {
    "split.json": {"root": str, "classes": list, "train": dict, "valid": dict, "eval": dict},
    "metrics.json": {"classes": list, "before": dict, "after": dict, "best_epoch": int, "seconds": dict},
}

log = logging.getLogger("finetune")


def create(config: Config, default_name: str) -> Path:
    """Make `<runs_dir>/<name>`, or `<name>-2` and so on where it exists, and write config.yaml.

    Raises:
        InputError: the folder cannot be made or written.
    """
    name = config.name or default_name.encode()[:NAME_BYTES].decode(errors="ignore")
    number = 1
    while True:
        folder = Path(config.runs_dir) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=config.exist_ok)
            for result in RESULTS:  # of a run that was here before, whose settings these are not
                (folder / result).unlink(missing_ok=True)
            write_text(folder / "config.yaml", to_yaml(config))
            return folder
        except FileExistsError:
            if not folder.is_dir() and folder.exists():
                raise InputError(f"{folder}: a file of this name is in the way. Choose another --name.") from None
            number += 1
        except OSError as error:
            remedy = "a shorter --name" if error.errno == errno.ENAMETOOLONG else "another place with --runs_dir"
            raise InputError(
                f"{folder}: the run folder cannot be written ({error.strerror}). Choose {remedy}."
            ) from error


def ckpt_path(run: Path, name: str) -> Path:
    return run / "ckpt" / f"{name}_best.ckpt"


def log_to(folder: Path) -> None:
    """From now on the log also goes into the run's log.txt."""
    handler = logging.FileHandler(folder / "log.txt", mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)


def write_environment(folder: Path, device: Device, seed: int) -> None:
    """environment.json: what is needed to repeat the run beside its config."""
    facts = {
        "command": sys.argv,
        "python": host.python_version(),
        "system": host.platform(),
        "packages": versions(),
        "device": asdict(device),
        "seed": seed,
        "git_revision": _git_revision(),
    }
    write_json(folder / "environment.json", facts)


def versions() -> dict[str, str]:
    """Of the packages that decide the numbers; not all of them must be there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git_revision() -> str | None:
    """Of this checkout, with "+changes" when it has any; None without git."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty=+changes",
        "--abbrev=40",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def peak_memory_mb() -> int | None:
    """The most memory this process has had, in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def evaluation_pictures(run: Path) -> list[Path] | np.ndarray:
    """The evaluation pictures in the order of split.json: N files, or uint8 (N, H, W, channels)."""
    split = read_json(run, "split.json")
    if (run / PICTURES).is_file():
        try:
            return np.load(run / PICTURES)
        except Exception as error:  # NumPy raises nearly any type on a damaged head
            raise InputError(f"{run / PICTURES}: damaged ({error}). {again(run)}") from error
    if not Path(split["root"]).is_dir():
        raise InputError(
            f"{split['root']}: the folder of the pictures of {run} is not there any more. Put it back, or repeat the "
            "run with pictures that are there; eval takes others by --dataset_path."
        )
    return [Path(split["root"], name) for name in split["eval"]]


def training_pictures(run: Path) -> list[Path]:
    """The files that trained, in the order of split.json."""
    split = read_json(run, "split.json")
    return [Path(split["root"], name) for name in split["train"]]


def read_json(run: Path, name: str) -> dict:
    """A JSON file of a run folder.

    Raises:
        InputError: there is no such run, the run did not get that far, or the file is damaged.
    """
    path = run / name
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder. Runs are made by `python -m finetune run` below runs/.")
    if not path.is_file():
        raise InputError(f"{path}: not there. Is {run} a run folder, and did its run finish? See {run / 'log.txt'}.")
    return files.read_json(path, again(run), NEEDED.get(name))


def again(run: Path) -> str:
    return f"Repeat the run: python -m finetune run {run / 'config.yaml'}."
