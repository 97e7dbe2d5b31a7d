"""The command line: python -m pretrained list | fetch NAME | inspect FILE | convert FILE OUT.ckpt."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.base import InputError, MachineFault
from datasets.console import open_console, print_table


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pretrained", description="Weights of MobileNetV2 from anywhere.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="the names that --pretrain_ckpt understands beside files")
    command = verbs.add_parser("fetch", help="download weights from where they are published")
    command.add_argument("name", metavar="NAME", help="a name of the list")
    command = verbs.add_parser("inspect", help="what a weight file holds, and each fact with its origin")
    command.add_argument("file", metavar="FILE", help="of MindSpore, PyTorch, Keras, TensorFlow.js or safetensors")
    command = verbs.add_parser("convert", help="write a CKPT with the model zoo's names, its facts beside it")
    command.add_argument("file", metavar="FILE", help="as for inspect")
    command.add_argument("target", metavar="OUT.ckpt", type=Path, help="a new file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    open_console()
    parsed = parse(arguments)
    try:
        {"list": show_list, "fetch": fetch, "inspect": inspect, "convert": convert}[parsed.verb](parsed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, MachineFault) else 2
    except (OSError, MemoryError) as error:
        print(f"error: {error or 'There is too little memory.'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def show_list(parsed: argparse.Namespace) -> None:
    from pretrained.describe import table

    print_table(list(table()))


def fetch(parsed: argparse.Namespace) -> None:
    from pretrained.catalog import find_by_name
    from pretrained.files import fetch_weights

    record = find_by_name(parsed.name)
    if record is None:
        raise InputError(f"{parsed.name}: no such name. `python -m pretrained list` shows them.")
    print(fetch_weights(record))
    print(f"source: {record.source}; licence: {record.licence}")


def inspect(parsed: argparse.Namespace) -> None:
    from pretrained.describe import inspect

    for line in inspect(parsed.file):
        print(line)


def convert(parsed: argparse.Namespace) -> None:
    from pretrained.describe import convert

    print(convert(parsed.file, parsed.target))


if __name__ == "__main__":
    sys.exit(main())
