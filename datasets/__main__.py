"""The command line: python -m datasets list | fetch NAME | draw FOLDER | check FOLDER."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.base import InputError, MachineFault
from datasets.console import open_console, print_table


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m datasets", description="Pictures to learn from.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    cache = {"type": Path, "default": Path("cache"), "help": "sets lie in <cache_dir>/NAME (cache)"}
    command = verbs.add_parser("list", help="the names that --dataset_path understands beside folders")
    command.add_argument("--cache_dir", "--cache-dir", **cache)
    command = verbs.add_parser("fetch", help="download a data set from where it is published, and unpack it")
    command.add_argument("name", metavar="NAME", help="a name of the list, as mnist")
    command.add_argument("--cache_dir", "--cache-dir", **cache)
    command = verbs.add_parser("draw", help="draw the sample set of cats and dogs as JPEG files")
    command.add_argument("folder", metavar="FOLDER", type=Path, help="a new or empty folder")
    command.add_argument("--per_class", "--per-class", type=int, default=200, help="pictures a class (200)")
    command.add_argument("--seed", type=int, default=0, help="another seed, other animals (0)")
    command = verbs.add_parser("check", help="read every picture of a folder: what is damaged, odd or copied")
    command.add_argument("folder", metavar="FOLDER", type=Path, help="a folder of class folders")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    open_console()
    parsed = parse(arguments)
    try:
        return {"list": list_names, "fetch": fetch_source, "draw": draw, "check": check}[parsed.verb](parsed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, MachineFault) else 2
    except (OSError, MemoryError) as error:
        print(f"error: {error or 'There is too little memory.'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from there.", file=sys.stderr)
        return 130


def list_names(parsed: argparse.Namespace) -> int:
    from datasets.load import DRAWN, ORL_PGM, SOURCES, found_in, sources

    rows = [("name", "what", "download", "licence", "here")]
    for name in (DRAWN, ORL_PGM):
        rows.append((name, (SOURCES[name].__doc__ or "").split("\n")[0], "-", "-", "-"))
    for source in sources():
        there = str(found_in(source.name, parsed.cache_dir) or "-") if source.files else "yes"
        size = f"{source.bytes / 1e6:,.1f} MB" if source.bytes else "not stated" if source.files else "none"
        rows.append((source.name, source.about, size, source.licence, there))
    print_table(rows)
    return 0


def fetch_source(parsed: argparse.Namespace) -> int:
    from datasets.base import UNPACKED
    from datasets.fetch import fetch
    from datasets.load import sources
    from datasets.sources.archives import unpack

    known = {source.name: source for source in sources()}
    if parsed.name not in known:
        names = ", ".join(name for name, source in known.items() if source.files)
        raise InputError(f"{parsed.name}: nothing of this name can be fetched. There are {names}.")
    source, folder = known[parsed.name], parsed.cache_dir / parsed.name
    paths = fetch(source, folder)
    if source.unpacked:
        if not (folder / UNPACKED).is_dir():
            unpack(paths, folder / UNPACKED)
        paths = [folder / UNPACKED]
    for path in paths:
        print(path)
    print(f"credit: {source.credit}; licence: {source.licence}")
    return 0


def draw(parsed: argparse.Namespace) -> int:
    from datasets.drawn.sample import draw_dataset

    print(draw_dataset(parsed.folder, parsed.per_class, parsed.seed))
    return 0


def check(parsed: argparse.Namespace) -> int:
    """Exit status 1 when a picture is damaged."""
    from datasets.check import check_folder

    return 1 if check_folder(parsed.folder) else 0


if __name__ == "__main__":
    sys.exit(main())
