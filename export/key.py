"""The key of an encrypted MindIR: from a file, never from the command line, where every user of a machine can read it.

python -c "import pathlib, secrets; pathlib.Path('model.key').write_bytes(secrets.token_bytes(32))"
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from datasets.base import InputError

MODE = "AES-GCM"  # notices a wrong key and a changed file
KEY_BYTES = (16, 24, 32)
MAKE_ONE = "python -c \"import pathlib, secrets; pathlib.Path('model.key').write_bytes(secrets.token_bytes(32))\""


def read_key(path: Path | None) -> bytes | None:
    """The bytes of a key file; None for None.

    Raises:
        InputError: there is no such file, or it is not 16, 24 or 32 bytes long.
    """
    if path is None:
        return None
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(f"--enc_key_file {path}: cannot be read ({error.strerror}). Make one: {MAKE_ONE}") from error
    if len(key) not in KEY_BYTES:
        raise InputError(
            f"--enc_key_file {path}: {len(key)} bytes, expected 16, 24 or 32 random ones and nothing else, no end of "
            f"line either. Make one: {MAKE_ONE}"
        )
    return key


def encryption_facts(key: bytes) -> dict:
    """What the manifest says of an encrypted file. The check tells a wrong key, and not what the right one is."""
    return {"mode": MODE, "key_check": key_check(key)}


def key_check(key: bytes) -> str:
    return hashlib.sha256(b"key check of an encrypted MindIR" + key).hexdigest()[:16]


def right_key(model: Path, facts: dict, key: bytes | None) -> bytes | None:
    """The key to open a model file with; None where it is not encrypted. `facts`: the manifest's of this file.

    Raises:
        InputError: a key is missing, wrong, or not needed.
    """
    encryption = facts.get("encryption")
    if encryption is None:
        if key is not None:
            raise InputError(f"{model}: not encrypted. Leave --enc_key_file out.")
        return None
    if key is None:
        raise InputError(f"{model}: encrypted. Give the file with its key: --enc_key_file FILE")
    if key_check(key) != encryption["key_check"]:
        raise InputError(f"{model}: encrypted with another key than the one in --enc_key_file.")
    return key
