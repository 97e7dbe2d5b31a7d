"""What a network from scratch sees: the filters of its first layer, and one picture after each of its blocks.

python -m finetune look runs/mnist_lenet digit.jpg          a picture as `predict` takes it
python -m finetune look runs/mnist_lenet 17                 evaluation picture 17 of the run, counted from 0

figures/filters.png: each weight of a filter a pixel, red above and blue below 0; of an MLP, those of each unit.
figures/blocks.png: a row a block, the maps of up to MAPS channels, each from its darkest to its brightest value; bars
where there are no places.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.image import load_images, normalise
from finetune.run_folder import evaluation_pictures

MAPS = 12  # of a block that are drawn
FILTERS = 64


def show(run: Path, picture: Path) -> tuple[Path, Path]:
    """Draw both figures into the run's folder; returns their paths.

    Raises:
        InputError: not a finished run from scratch, or no such picture.
    """
    from finetune.trained import load_trained

    trained = load_trained(run)
    if trained.backbone is not None:
        raise InputError(f"{run}: on a backbone. Give a run from scratch, as of `python -m finetune run mnist_lenet`.")
    network = trained.network
    if hasattr(network, "members"):
        network = network.members[0]
        print("an ensemble: this is its first member")
    image = read(run, picture, trained.image)
    folder = run / "figures"
    folder.mkdir(exist_ok=True)
    paths = folder / "filters.png", folder / "blocks.png"
    draw_filters(first_filters(network, image.shape), paths[0])
    rows = after_each_block(network, normalise(image[None], trained.image))
    answer = rows.pop("answer")
    said = ", ".join(f"{trained.classes[row]} {100 * answer[row]:.1f} %" for row in np.argsort(-answer)[:3])
    draw_blocks(image, rows, said, paths[1])
    print(f"answer: {said}\nfigures: {paths[0]}, {paths[1]}")
    return paths


def read(run: Path, picture: Path, spec) -> np.ndarray:
    """uint8 (H, W, channels) of a file, or of an evaluation picture by its number."""
    pictures = [picture]
    if not picture.exists() and picture.name.isdigit() and len(picture.parts) == 1:
        pictures, row = evaluation_pictures(run), int(picture.name)
        if row >= len(pictures):
            raise InputError(f"{row}: {run} has evaluation pictures 0 to {len(pictures) - 1}.")
        pictures = pictures[row : row + 1]
    elif not picture.is_file():
        raise InputError(f"{picture}: no such file. Give a picture, or the number of an evaluation picture.")
    images, damaged = load_images(pictures, spec)
    if damaged:
        raise InputError(f"{pictures[0]}: {damaged[0]}. Give another picture.")
    return images[0]


def first_filters(network, shape: tuple[int, int, int]) -> np.ndarray:
    """(filters, rows, columns): of a convolution its kernels, of an MLP the weights of each unit as a picture.

    Of colour pictures it is the mean of the channels.
    """
    height, width, channels = shape
    name, first = next((name, p) for name, p in network.parameters_and_names() if p.ndim >= 2)
    weights = first.asnumpy()
    if "fc1" in name:
        weights = weights.reshape(-1, channels, height, width)
    return weights.mean(1)


def after_each_block(network, x: np.ndarray) -> dict[str, np.ndarray]:
    """Of one picture (1, channels, H, W): what stands behind each layer, maps (C, H, W) or units (D,), by its name; and
    the probabilities as `answer`.

    Layers that only shape or switch (activations go with what is before them) are not shown on their own.
    """
    import mindspore as ms

    names = {id(cell): name.removeprefix("classifier.") for name, cell in network.cells_and_names()}
    steps = list(network.steps) + list(getattr(getattr(network, "classifier", None), "steps", ()))
    rows, here, value = {}, None, ms.Tensor(x)
    for step in steps:
        value = step(value)
        name = names[id(step)]
        if "activation" not in name:
            here = name
        if "dropout" not in name and "flatten" not in name:
            rows[here] = value.asnumpy()[0]
    logits = rows[here]
    exponentials = np.exp(logits - logits.max())
    return {**rows, "answer": exponentials / exponentials.sum()}


def draw_filters(filters: np.ndarray, path: Path) -> None:
    from matplotlib.figure import Figure

    shown = filters[:FILTERS]
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(1.3 * columns, 1.3 * rows + 0.6), layout="constrained")
    figure.suptitle(f"first layer: {len(shown)} of {len(filters)} filters, red above 0")
    for axis, one in zip(grid(figure, rows, columns), shown):
        largest = np.abs(one).max() or 1
        axis.imshow(one, cmap="RdBu_r", vmin=-largest, vmax=largest)
    figure.savefig(path, dpi=110, facecolor="white")


def draw_blocks(image: np.ndarray, rows: dict[str, np.ndarray], said: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.1 * MAPS, 1.25 * (len(rows) + 1)), layout="constrained")
    figure.suptitle(said, parse_math=False)
    axes = grid(figure, len(rows) + 1, MAPS)
    axes[0].imshow(image.squeeze(), cmap="gray")
    axes[0].set_title("picture", fontsize=8)
    spec = axes[0].get_gridspec()
    for number, (name, values) in enumerate(rows.items(), 1):
        line = axes[number * MAPS : (number + 1) * MAPS]
        shape = " x ".join(map(str, values.shape))
        if values.ndim == 1:
            wide = figure.add_subplot(spec[number, :])
            wide.bar(range(len(values)), values, width=1, color=["#cf222e" if v > 0 else "#0969da" for v in values])
            wide.set_title(f"{name}: {shape}", fontsize=8, loc="left")
            wide.set(xticks=[], yticks=[])
            continue
        for axis, one in zip(line, values):
            axis.imshow(one, cmap="gray")
        line[0].set_title(f"{name}: {shape}", fontsize=8, loc="left")
    figure.savefig(path, dpi=110, facecolor="white")


def grid(figure, rows: int, columns: int) -> list:
    axes = np.ravel(figure.subplots(rows, columns))
    for axis in axes:
        axis.set_axis_off()
    return list(axes)
