"""The feature store on disk: whole chunks of rows, found by the sha256 of the picture's bytes.

    <cache_dir>/features/<facts>/facts.json
    <cache_dir>/features/<facts>/<chunk>.features.npy     float32 (n, D), or float16 (n, C, H, W) in front of a cut
    <cache_dir>/features/<facts>/<chunk>.crc32            of the file of features, 8 hexadecimal digits
    <cache_dir>/features/<facts>/<chunk>.keys.npy         uint8 (n, 32), written last: marks it complete; <chunk> is
                                                          the sha256 of what is in it
    <cache_dir>/features/<facts>/<chunk>.tones.json       {key: what is odd about the picture}, of few

<facts> is the sha256 of everything beside the picture that decides its numbers. Files appear by rename
and are never changed, so a killed run leaves only whole chunks, and two runs at once at worst compute
the same rows twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import time
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from datasets.base import InputError
from datasets.files import replace_file

PIECE_BYTES = 1 << 22
STALE_SECONDS = 24 * 3600  # temporary files of killed runs are removed after this

log = logging.getLogger("finetune")


class FeatureStore:
    """The folder of one backbone: write whole chunks, find rows by key."""

    def __init__(self, cache_dir: Path, facts: dict, dtype: type = np.float32):
        self.dtype = dtype  # of the rows
        text = json.dumps(facts, sort_keys=True)
        self.folder = Path(cache_dir) / "features" / hashlib.sha256(text.encode()).hexdigest()[:32]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "facts.json").exists():
                replace_file(self.folder / "facts.json", lambda f: f.write(json.dumps(facts, indent=1).encode()))
        except OSError as error:
            raise self._not_writable(error) from error
        self._remove_stale()

    def check_writable(self) -> None:
        """Before rows are computed. A cache that has them all may be read-only.

        Raises:
            InputError: it cannot be written.
        """
        try:
            replace_file(self.folder / "writable", lambda f: None)
            (self.folder / "writable").unlink(missing_ok=True)
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.folder}: the feature cache cannot be written ({error.strerror}). "
            "Choose another folder with --cache_dir."
        )

    def write_chunk(self, keys: Sequence[bytes], features: np.ndarray) -> None:
        packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), 32)
        name = name_of(packed)
        content = io.BytesIO()
        np.save(content, features.astype(self.dtype, copy=False))
        check = f"{zlib.crc32(content.getbuffer()):08x}".encode()
        if not (self.folder / f"{name}.keys.npy").exists():  # else another run was first, with the same rows
            replace_file(self.folder / f"{name}.features.npy", lambda f: f.write(content.getbuffer()))
            replace_file(self.folder / f"{name}.crc32", lambda f: f.write(check))
            replace_file(self.folder / f"{name}.keys.npy", lambda f: np.save(f, packed))

    def read_index(self) -> dict[bytes, tuple[Path, int]]:
        """Key -> (features file, row in it). A chunk that does not read back whole is removed."""
        index = {}
        for keys_file in sorted(self.folder.glob("*.keys.npy")):
            features_file = keys_file.with_name(keys_file.name.replace(".keys.", ".features."))
            try:
                keys = np.load(keys_file)
                if name_of(keys) != keys_file.name.partition(".")[0]:
                    raise ValueError("the keys were changed")
                if len(np.load(features_file, mmap_mode="r")) != len(keys):
                    raise ValueError("the number of rows differs")
            except Exception as error:  # NumPy raises nearly any type on a damaged head
                self._remove_chunk(features_file, error)
                continue
            index.update({key.tobytes(): (features_file, row) for row, key in enumerate(keys)})
        return index

    def drop_damaged(self, features_files: Iterable[Path]) -> set[Path]:
        """Remove chunks in which a bit has changed since they were written. Which they were."""
        dropped = set()
        for file in features_files:
            check = file.with_name(file.name.replace(".features.npy", ".crc32"))
            if check.is_file() and check.read_bytes() != f"{crc32_of(file):08x}".encode():  # older ones have none
                self._remove_chunk(file, "its checksum differs")
                dropped.add(file)
        return dropped

    def _remove_chunk(self, features_file: Path, error: object) -> None:
        log.warning("%s: damaged chunk of the feature cache, computed again (%s)", features_file, error)
        for suffix in (".keys.npy", ".crc32", ".features.npy"):
            with contextlib.suppress(OSError):
                features_file.with_name(features_file.name.replace(".features.npy", suffix)).unlink()

    def write_tones(self, tones: dict[bytes, str]) -> None:
        """Remember what was odd about pictures, so that it is said when their rows come from the store, too."""
        if tones:
            text = json.dumps({key.hex(): tone for key, tone in sorted(tones.items())}).encode()
            name = hashlib.sha256(text).hexdigest()[:32]
            replace_file(self.folder / f"{name}.tones.json", lambda f: f.write(text))

    def read_tones(self) -> dict[bytes, str]:
        tones = {}
        for file in sorted(self.folder.glob("*.tones.json")):
            try:
                tones.update({bytes.fromhex(key): str(tone) for key, tone in json.loads(file.read_bytes()).items()})
            except OSError:  # another run has removed it
                continue
            except (ValueError, AttributeError) as error:
                log.warning("%s: damaged, removed (%s)", file, error)
                with contextlib.suppress(OSError):
                    file.unlink()
        return tones

    def _remove_stale(self) -> None:
        for leftover in self.folder.glob("*.tmp"):
            with contextlib.suppress(OSError):  # another run was first, or the cache is read-only
                if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                    leftover.unlink()


def name_of(keys: np.ndarray) -> str:
    """Of the chunk with these keys, uint8 (n, 32)."""
    return hashlib.sha256(keys.tobytes()).hexdigest()[:32]


def crc32_of(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            value = zlib.crc32(piece, value)
    return value


class StoredRows:
    """(N, D) or (N, C, H, W), read from the chunks when rows are asked for: memory does not grow with N.

    Understands what NumPy does of the first axis: `rows[7]`, `rows[10:20]`, `rows[indices]`, `rows[mask]`.
    Rows that are not in the store are NaN.
    """

    def __init__(self, places: Sequence[tuple[Path, int] | None]):
        self.files = list({place[0]: None for place in places if place})
        number = {file: n for n, file in enumerate(self.files)}
        self.file = np.array([number[place[0]] if place else -1 for place in places], np.int32)
        self.row = np.array([place[1] if place else 0 for place in places], np.int32)
        first = np.load(self.files[0], mmap_mode="r") if self.files else np.empty((0, 0), np.float32)
        self.dtype, self.ndim, self.shape = first.dtype, first.ndim, (len(places), *first.shape[1:])

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, wanted) -> np.ndarray:
        files, rows = np.atleast_1d(self.file[wanted]), np.atleast_1d(self.row[wanted])
        found = np.full((len(files), *self.shape[1:]), np.nan, self.dtype)
        for number in np.unique(files[files >= 0]):
            here = files == number
            found[here] = np.load(self.files[number], mmap_mode="r")[rows[here]]
        return found if np.ndim(self.file[wanted]) else found[0]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)
