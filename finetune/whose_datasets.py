"""What to say where another package called `datasets` stands before this checkout on the module search path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def complaint(error: ModuleNotFoundError) -> str:
    if not (error.name or "").startswith("datasets"):
        return f"error: {error}. Install what the README says: pip install -r requirements.txt"
    spec = importlib.util.find_spec("datasets")
    found = Path(spec.origin).parent if spec and spec.origin else "nothing"
    return (
        f"error: Python finds another `datasets` before the one of {CHECKOUT}: {found}. Run the command in {CHECKOUT}, "
        "or put it first in PYTHONPATH."
    )
