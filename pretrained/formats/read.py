"""Which format a file is of, told by its content, and its arrays."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from datasets.base import cannot_read
from datasets.decoding.formats import what_it_is
from pretrained.formats import ckpt, keras, pytorch, safetensors, tfjs
from pretrained.formats.base import MOST_BYTES, ZIP_FAULTS, WeightFile, unreadable

KNOWN_AS = "CKPT, safetensors, PyTorch .pth, Keras .h5 and .keras, TensorFlow.js model.json"

OTHER_PICKLE = (
    "a pickle that PyTorch did not write, and pickles are programs, so that nothing of it was read. PaddlePaddle's "
    ".pdparams are such, but PaddleClas' MobileNetV2 is another network: its first block expands"
)


def read_weights(path: Path) -> WeightFile:
    """The arrays of a weight file by the names that they have there.

    Raises:
        InputError: of no known format, damaged, or of sizes that its content does not bear out.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise unreadable(path, f"larger than {MOST_BYTES >> 20} MiB, and the largest MobileNetV2 has 100 MB")
        content = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    if content.startswith(keras.H5_START):
        return keras.read(path, content)
    if content.startswith(b"PK\3\4"):
        return _read_zip(path, content)
    if content.startswith(pytorch.LEGACY_START):
        return pytorch.read_legacy(path, content)
    if safetensors.looks_so(content[:16], len(content)):
        return safetensors.read(path, content)
    if content.lstrip()[:1] == b"{":
        return tfjs.read(path, content)
    if content[:1] == b"\n":  # field 1, bytes
        return ckpt.read(path, content)
    if content.startswith(b"\x80"):
        raise unreadable(path, OTHER_PICKLE)
    what = "it is empty" if not content else what_it_is(content) or f"none of {KNOWN_AS}"
    raise unreadable(path, what.replace("the picture", "the weights"))


def _read_zip(path: Path, content: bytes) -> WeightFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except ZIP_FAULTS as error:
        raise unreadable(path, f"a damaged zip ({error})") from error
    names = archive.namelist()
    if keras.WEIGHTS in names:
        return keras.read_zip(path, archive)
    if any(name.endswith("/data.pkl") for name in names):
        return pytorch.read_zip(path, archive)
    raise unreadable(path, "a zip of neither Keras nor PyTorch")
