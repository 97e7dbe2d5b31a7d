"""safetensors, by the library of that name: timm's, Hugging Face's and many others' files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretrained.formats.base import BFLOAT16, Entries, WeightFile, unreadable

TYPES = {
    **{"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16, "BOOL": np.dtype("?")},
    **{f"I{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
HEAD_BYTES = 8  # the length of the JSON head, little endian; the head follows


def looks_so(start: bytes, size: int) -> bool:
    return (
        int.from_bytes(start[:HEAD_BYTES], "little") <= size - HEAD_BYTES and start[HEAD_BYTES : HEAD_BYTES + 1] == b"{"
    )


def read(path: Path, content: bytes) -> WeightFile:
    """Raises InputError: cut short or damaged, which the library finds, or numbers of an unknown type."""
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(content)
    except (SafetensorError, ValueError) as error:
        raise unreadable(path, f"a damaged safetensors file ({error})") from error
    entries = Entries(path)
    for name, tensor in tensors:
        if tensor["dtype"] not in TYPES:
            raise unreadable(path, f"{name} has numbers of the type {tensor['dtype']}")
        entries.add(name, tensor["data"], TYPES[tensor["dtype"]], tensor["shape"])
    return WeightFile("safetensors", entries.arrays)
