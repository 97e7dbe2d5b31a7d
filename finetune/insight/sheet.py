"""Contact sheets as HTML: small pictures with a line below each, in the browser's own letters."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageOps

from datasets.decoding.decode import decode, read_file
from datasets.decoding.formats import DamagedPicture

SIDE = 132  # pixels
STYLE = """
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
.sheet figure { margin: 0; min-width: 0; } .sheet img { width: 100%; aspect-ratio: 1; object-fit: cover; }
.sheet figcaption { font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
"""


def sheet(pictures: Iterable[tuple[Path, Sequence[str]]]) -> str:
    """Pictures, each with the lines below it."""
    figures = []
    for path, lines in pictures:
        caption = "<br>".join(html.escape(line) for line in lines)
        figures.append(f'<figure><img alt="" src="{thumbnail(path)}"><figcaption>{caption}</figcaption></figure>')
    return f'<div class="sheet">{"".join(figures)}</div>'


def page(title: str, *sections: tuple[str, Iterable[tuple[Path, Sequence[str]]]]) -> str:
    """Sheets as a page of their own, each with a text above it."""
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    body = 'font: 16px/1.5 system-ui, "Noto Sans SC", sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem'
    title = html.escape(title)
    style = f":root {{ color-scheme: light dark; }} body {{ {body}; }} {STYLE}"
    sheets = "".join(f"<p>{html.escape(text)}</p>{sheet(pictures)}" for text, pictures in sections)
    return f"{head}<title>{title}</title><style>{style}</style><h1>{title}</h1>{sheets}</html>\n"


def thumbnail(path: Path) -> str:
    """A data URI; an empty one where the picture cannot be read any more."""
    try:
        picture = decode(read_file(path), SIDE).picture
    except (OSError, DamagedPicture):
        return ""
    file = io.BytesIO()
    ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
