"""The command line: python -m export RUN | verify RUN_OR_BUNDLE | predict MODEL PATH... | serve RUN_OR_BUNDLE

Nothing heavy is imported before the arguments are understood.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

try:
    from datasets.base import InputError, MachineFault
except ModuleNotFoundError as error:
    from finetune.whose_datasets import complaint

    sys.exit(complaint(error))
from datasets.console import open_console
from finetune.__main__ import explain
from finetune.config_values import CHOICES

VERBS = ("run", "verify", "predict", "serve")


def parse(arguments: list[str]) -> argparse.Namespace:
    """`python -m export RUN` is short for `python -m export run RUN`."""
    if arguments and arguments[0] not in (*VERBS, "-h", "--help"):
        arguments = ["run", *arguments]
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export the trained network of a run folder, and prove that it gives the same answers.",
        epilog="python -m export RUN is short for python -m export run RUN.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    command = verbs.add_parser("run", help="write the model and its manifest, and compare it with the trained network")
    command.add_argument(
        "run", metavar="RUN", type=Path, help="a run folder; - reads its name from standard input when all is imported"
    )
    command.add_argument(
        "--file_format", "--file-format", nargs="+", choices=CHOICES["export.file_format"], default=["MINDIR"]
    )
    command.add_argument(
        "--input_form",
        "--input-form",
        nargs="+",
        choices=CHOICES["export.input_form"],
        default=["tensor"],
        help="tensor: float NCHW, normalised by the caller; image: uint8 NHWC in RGB, normalised by the model",
    )
    command.add_argument(
        "--batch_size", "--batch-size", type=at_least_one, help="files that take exactly so many pictures; default: any"
    )
    command.add_argument(
        "--keep_batchnorm",
        "--keep-batchnorm",
        action="store_true",
        help="MindIR with the operations of the training; default: folded into the convolutions",
    )
    add_key_file(command, "encrypt the MindIR files with the key in this file: 16, 24 or 32 random bytes")
    command.add_argument(
        "--precision",
        nargs="+",
        choices=CHOICES["export.precision"],
        default=[],
        help="beside the files in float: int8 of ONNX, fp16 of LITE (its weights only)",
    )
    command.add_argument(
        "--allowed_loss",
        "--allowed-loss",
        type=points,
        default=1.0,
        metavar="POINTS",
        help="points of accuracy that files of less precision may lose; default: 1",
    )
    command.add_argument("--time", action="store_true", help="measure what one picture takes in each file")
    command.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    add_lite_python(command)
    command = verbs.add_parser("verify", help="check an export once more, with its run or without")
    command.add_argument("run", metavar="RUN_OR_BUNDLE", type=Path, help="a run folder, or the export folder of one")
    command.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    add_key_file(command)
    add_lite_python(command)
    command = verbs.add_parser("predict", help="classify pictures")
    command.prog = "python -m finetune predict"
    command.add_argument(
        "model", metavar="RUN_OR_MODEL", type=Path, help="a run folder, or an exported .mindir, .onnx or .ms"
    )
    command.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="pictures, or folders of pictures")
    command.add_argument("--csv", type=Path, metavar="FILE", help="also write all probabilities to this file")
    command.add_argument(
        "--maps", type=Path, metavar="DIR", help="also draw where the evidence for each answer lies; run folders only"
    )
    command.add_argument("--platform", default="auto", help="auto, CPU, GPU or Ascend")
    add_key_file(command)
    add_lite_python(command)
    command = verbs.add_parser("serve", help="try the model in a browser, or by its JSON API")
    command.add_argument("run", metavar="RUN_OR_BUNDLE", type=Path, help="a run folder, or the export folder of one")
    command.add_argument("--port", type=port, default=8000, help="0 takes a free one; default: 8000")
    add_key_file(command)
    command.add_argument(
        "--public_url",
        "--public-url",
        type=public_url,
        action="append",
        default=[],
        metavar="URL",
        help="the address of a proxy before it, as https://demo.example.org/model/; may be given several times",
    )
    command.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, reachable from this machine only")
    command.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    return parser.parse_args(arguments)


def add_key_file(command: argparse.ArgumentParser, help_text: str = "the key of an encrypted MindIR") -> None:
    command.add_argument("--enc_key_file", "--enc-key-file", type=Path, metavar="FILE", help=help_text)


def add_lite_python(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lite_python",
        "--lite-python",
        metavar="PYTHON",
        help="one that has MindSpore Lite, for .ms; default: the variable MINDSPORE_LITE_PYTHON",
    )


def at_least_one(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def points(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no number of points from 0 to 100")
    return found


def port(text: str) -> int:
    if not (text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text} is not a port; ports are 0 to 65535")
    return int(text)


def public_url(text: str) -> str:
    from urllib.parse import urlsplit

    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise argparse.ArgumentTypeError(f"{text} is not an address, as https://demo.example.org/model/")
    return text


def main(arguments: list[str] | None = None) -> int:
    open_console()
    parsed = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    try:
        return act(parsed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, MachineFault) else 2
    except (OSError, MemoryError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 130


def act(parsed: argparse.Namespace) -> int:
    """The exit status: 1 where pictures had to be left out."""
    from export.key import read_key
    from export.standalone.lite import VARIABLE
    from finetune.ahead import named
    from finetune.device import init_device

    if getattr(parsed, "lite_python", None):
        os.environ[VARIABLE] = str(Path.cwd() / parsed.lite_python)  # not resolved: a venv's Python is a link
    key = read_key(parsed.enc_key_file)
    if parsed.verb == "predict":
        if parsed.model.suffix != ".onnx":  # which knows no MindSpore
            init_device(parsed.platform)
        from export.predict import show

        return 1 if show(parsed.model, parsed.paths, parsed.csv, key, parsed.maps) else 0

    if parsed.verb == "serve":
        from export.serving.server import serve

        serve(parsed.run, parsed.host, parsed.port, parsed.threads, key, parsed.public_url)
        return 0

    from export.parity import half_of
    from export.verdict import cost_line, left_out, table

    init_device("CPU", threads=half_of(parsed.threads))
    from export import bundle

    if parsed.verb == "run":
        parsed.run = named(parsed.run)
        wanted = bundle.Wanted(
            parsed.file_format,
            parsed.input_form,
            parsed.precision,
            parsed.batch_size,
            key,
            parsed.keep_batchnorm,
            parsed.allowed_loss,
            parsed.time,
        )
        found = bundle.export_run(parsed.run, parsed.threads, wanted)
    else:
        found = bundle.verify(parsed.run, parsed.threads, parsed.enc_key_file)
    if found:
        print(f"{parsed.run / 'export'}: compared with the trained network on {found['pictures']} evaluation pictures")
        print(table(found, parsed.run / "export"))
        print(cost_line(parsed.run / "export"))
        for line in left_out(found):
            print(line, file=sys.stderr)
        return 1 if left_out(found) else 0
    return 0


if __name__ == "__main__":
    exit_code = main()
    from finetune.device import leave

    leave(exit_code)
