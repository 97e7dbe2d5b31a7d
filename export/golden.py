"""What makes a bundle stand alone: class names, golden pictures with their answers, and two scripts.

`golden/` holds a few real evaluation pictures, what becomes of them on the way into the model, and the
trained network's probabilities, so that a bundle can be checked where neither the run nor its data are.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import datasets.decoding
import datasets.image
from datasets.files import write_json
from datasets.image import ImageSpec, load_images, normalise
from export.manifest import FLOAT
from export.parity import Answers, evaluation_pictures, read_probabilities
from export.verdict import NOVELTY_TOLERANCE, TOLERANCE

LABELS = "labels.txt"
PICTURES = 4
LESS_TOLERANCE = 0.1  # of int8's probabilities: processors round and saturate in their own ways
EDGE = 0.02  # between the probabilities of the two best classes

STANDALONE = Path(__file__).parent / "standalone"
# The bundle's preprocessing is ours: these modules need NumPy and Pillow only. There is no `datasets` in a bundle.
SCRIPTS = {
    "preprocessing.py": Path(datasets.image.__file__),
    **{f"decoding/{path.name}": path for path in sorted(Path(datasets.decoding.__file__).parent.glob("*.py"))},
    **{name: STANDALONE / name for name in ("bundle.py", "lite.py", "predict.py", "verify.py")},
}

LANGUAGES = {"ONNX": ("cpp", "js"), "LITE": ("cpp",)}  # format -> folders of programs that run it


def write_labels(folder: Path, classes: tuple[str, ...]) -> None:
    """A name a line, in the order of the model's outputs."""
    text = "".join(f"{name}\n" for name in classes)
    (folder / LABELS).write_bytes(text.encode())  # the same bytes on every system


def write_scripts(folder: Path, file_formats: Sequence[str] = ()) -> None:
    """What needs Python, and of the programs in other languages, which know colour only, those that run a format."""
    others = {name for file_format in file_formats for name in LANGUAGES.get(file_format, ())}
    found = (path for name in sorted(others) for path in sorted((STANDALONE / name).iterdir()))
    programs = {path.relative_to(STANDALONE).as_posix(): path for path in found if path.is_file()}
    for name, source in {**SCRIPTS, **programs}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        text = source.read_text(encoding="utf-8").replace("from datasets.", "from ")
        (folder / name).write_bytes(text.encode())  # the same bytes on every system


def write_golden(folder: Path, run: Path, image: ImageSpec, answers: Answers, models: dict[str, dict]) -> None:
    """`image`: how the pictures are prepared; `answers`: to all evaluation pictures; `models`: facts by file name, in
    the order of the answers. Files of less precision are held to their own answers."""
    golden = folder / "golden"
    golden.mkdir()
    paths, labels, split = evaluation_pictures(run)
    names, classes = list(split["eval"]), split["classes"]
    rows = [row for row in telling(read_probabilities(run, classes), labels) if answers.readable[row]]
    less = {
        name: {
            "tolerance": LESS_TOLERANCE,
            "probabilities": found.probabilities[rows[:PICTURES]].astype(float).tolist(),
        }
        for (name, facts), found in zip(models.items(), answers.exported)
        if facts["precision"] != FLOAT
    }
    entries = []
    for number, row in enumerate(rows[:PICTURES]):
        stem = str(number)
        if isinstance(paths, np.ndarray):
            file = f"{stem}.png"
            picture = paths[row].squeeze(-1) if paths.shape[-1] == 1 else paths[row]
            Image.fromarray(picture).save(golden / file)
        else:
            file = stem + paths[row].suffix.lower()
            shutil.copyfile(paths[row], golden / file)
        images, _ = load_images([golden / file], image)
        wanted = answers.reference[row]
        novelty = {} if wanted.novelty is None else {"novelty": float(wanted.novelty)}
        np.save(golden / f"{stem}_image.npy", images[0])
        np.save(golden / f"{stem}_tensor.npy", normalise(images, image)[0])
        entries.append(
            {
                "file": file,
                "image": f"{stem}_image.npy",
                "tensor": f"{stem}_tensor.npy",
                "from": names[row],
                "true": classes[labels[row]],
                "predicted": classes[wanted.probabilities.argmax()],
                "probabilities": dict(zip(classes, wanted.probabilities.astype(float).tolist())),
                **novelty,
            }
        )
    tolerances = {"tolerance": max(TOLERANCE.values()), "novelty_tolerance": NOVELTY_TOLERANCE}
    write_json(golden / "expected.json", {**tolerances, "pictures": entries, "less_precision": less})


def telling(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """The rows in the order in which they are worth to be golden.

    The least certain picture of each class first: where the answer is 1.000 no drift would show. Those on
    the very edge, where another machine's rounding may decide the class, come last.
    """
    second, first = np.sort(probabilities, 1)[:, -2:].T
    on_the_edge = first - second < EDGE
    order = np.lexsort((first, on_the_edge, labels))
    begins = np.searchsorted(labels[order], labels[order])  # where the class of each begins in the order
    rank = np.arange(len(labels)) - begins
    return order[np.lexsort((labels[order], rank, on_the_edge[order]))].tolist()
