"""The command line: parse -> config -> device -> import the verb.

Nothing heavy is imported before the arguments are understood, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import errno
import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

try:
    from datasets.base import InputError, MachineFault
except ModuleNotFoundError as error:
    from finetune.whose_datasets import complaint

    sys.exit(complaint(error))
from datasets.console import open_console
from finetune.config import Config, load_config

if TYPE_CHECKING:
    from finetune.ahead import Ahead

# Flag, its setting, its help. The first spelling is the model zoo's where the zoo has one.
RUN_FLAGS = (
    (
        ("--dataset_path", "--data"),
        "data.dataset_path",
        "folder of pictures: <root>/{train,eval}/<class>/* or <root>/<class>/*; or a name, as mnist",
    ),
    (
        ("--pretrain_ckpt", "--weights"),
        "model.pretrain_ckpt",
        "MobileNetV2 weights: a file, its folder, or a name of `python -m pretrained list`",
    ),
    (("--group_by",), "data.group_by", "one side of the split a group: folder, prefix, exif, duplicates, FILE.csv"),
    (("--exclude",), "data.exclude", "leave out the pictures that this file names: CSV with a column path, or lines"),
    (("--epochs",), "train.epochs", "passes over the training rows"),
    (("--batch_size",), "train.batch_size", "rows a step; default: 64, or fewer so that an epoch has 20 steps"),
    (("--seed",), "seed", "one seed, one result"),
    (("--name",), "name", "of the run folder; the data set's name if not given"),
    (("--runs_dir",), "runs_dir", "where run folders are made"),
)
FEATURE_FLAGS = (
    (("--cache_dir",), "cache_dir", "where computed features are kept"),
    (("--on",), "machines", "ray, or ray://host:port: the machines of a Ray cluster compute them"),
    (("--engine",), "engine", "what computes them: auto, openvino or mindspore"),
    (("--precision",), "precision", "f32, or bf16: faster and coarser, where the processor has it"),
)
DEVICE_FLAGS = (
    (("--platform", "--device_target"), "platform", "auto, CPU, GPU or Ascend"),
    (("--device_id",), "device_id", "which GPU or Ascend; else the variable DEVICE_ID, else 0"),
    (("--threads",), "threads", "CPU threads; 0: all cores"),
)
MANY_FLAGS = ((("--workers",), "workers", "processes that share a training, started by MindSpore's msrun"),)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m finetune",
        description="Fine-tune a MobileNetV2 head on your pictures and export it.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    for verb, help_text in (
        ("run", "everything: features, before, training, after, report, verified export"),
        ("train", "the same without the export"),
        ("features", "only compute and cache the features"),
    ):
        command = verbs.add_parser(verb, help=help_text, description=help_text)
        command.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="settings; see finetune/configs")
        command.add_argument("--recipe", metavar="NAME", help="one of finetune/configs by its name, as best")
        add_settings(command, RUN_FLAGS + FEATURE_FLAGS + DEVICE_FLAGS)
        add_settings(command, MANY_FLAGS)
        command.add_argument(
            *("--run_distribute", "--run-distribute"),
            choices=("true", "false") if verb != "features" else ("false",),
            default="false",
            help="true: this is one of the processes that msrun has started",
        )
        command.add_argument("--exist_ok", "--exist-ok", action="store_true", help="write into an existing run folder")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="any setting, as --set train.learning_rate=0.01",
        )

    command = verbs.add_parser("compare", help="one recipe in several variants, or recipes: one table, one figure")
    command.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="a recipe; see finetune/configs")
    command.add_argument("--vary", metavar="KEY=VALUE,VALUE", help="of this recipe, as train.optimizer=adam,sgd")
    command.add_argument("--recipes", nargs="+", metavar="CONFIG.yaml", help="or several recipes, each as it is")
    command.add_argument("--seeds", default="1", metavar="SEED,SEED", help="the same for all variants (1)")
    add_settings(command, RUN_FLAGS + DEVICE_FLAGS)
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all variants")

    help_text = "what the features say of the data and of the number; two runs: is their difference more than chance"
    command = verbs.add_parser("insight", help=help_text, description=help_text)
    command.add_argument("given", nargs="*", metavar="RECIPE | RUN | RUN_A RUN_B", help="settings, or run folders")
    command.add_argument("--unlabelled", type=Path, metavar="FOLDER", help="with RUN: rank these pictures for labels")
    add_settings(command, RUN_FLAGS + FEATURE_FLAGS + DEVICE_FLAGS)
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting")

    command = verbs.add_parser("shift", help="accuracy of networks from scratch on shifted pictures: a curve a run")
    command.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folders")
    command.add_argument("--pixels", type=int, default=4, help="the largest shift (4)")
    command.add_argument("--average", metavar="CLASS", help="also show them the average picture of this class, as 1")

    help_text = "what a network from scratch sees: its first filters, and one picture after each block"
    command = verbs.add_parser("look", help=help_text, description=help_text)
    command.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    command.add_argument("picture", metavar="PICTURE", type=Path, help="a file, or an evaluation picture by its number")

    command = verbs.add_parser("eval", help="evaluate a run on its evaluation pictures, or on others")
    command.add_argument("run", metavar="RUN", help="a run folder")
    command.add_argument(
        "--dataset_path", "--data", help="another folder with the same classes; all its pictures count"
    )
    add_settings(command, FEATURE_FLAGS + DEVICE_FLAGS)

    command = verbs.add_parser("predict", help="classify pictures with a run or a MindIR file", add_help=False)
    command.add_argument("rest", nargs=argparse.REMAINDER)

    command = verbs.add_parser("report", help="draw the figures and report.html of a run again")
    command.add_argument("run", metavar="RUN", help="a run folder; - reads its name from standard input")

    command = verbs.add_parser("checks", help="show versions, device, kernel guard, threads, memory, folders")
    add_settings(command, DEVICE_FLAGS)
    return parser.parse_args(arguments)


def add_settings(command: argparse.ArgumentParser, flags) -> None:
    """Flags that stand for settings; each with underscores or hyphens."""
    for spellings, key, help_text in flags:
        hyphened = [spelling[:2] + spelling[2:].replace("_", "-") for spelling in spellings]
        names = dict.fromkeys([*spellings, *hyphened])
        command.add_argument(*names, dest=key, help=help_text, metavar=key.split(".")[-1].upper())


def settings_of(parsed: argparse.Namespace) -> dict[str, str]:
    """{"section.key": text} of the flags that were given."""
    keys = [key for _, key, _ in RUN_FLAGS + FEATURE_FLAGS + DEVICE_FLAGS + MANY_FLAGS]
    flags = {key: vars(parsed)[key] for key in keys if vars(parsed).get(key) is not None}
    if getattr(parsed, "exist_ok", False):
        flags["exist_ok"] = True
    for pair in getattr(parsed, "set", []):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair}: expected KEY=VALUE, as in --set train.epochs=5.")
        flags[key] = value
    return flags


def recipe_of(parsed: argparse.Namespace) -> str | None:
    """The YAML file that was given by its path or by its name."""
    path, name = getattr(parsed, "config", None), getattr(parsed, "recipe", None)
    if name is None:
        return path
    if path:
        raise InputError(f"{path} and --recipe {name}: give one of them; a recipe's settings can be changed by --set.")
    folder = Path(__file__).with_name("configs")
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        raise InputError(
            f"--recipe {name}: no such recipe. There are {', '.join(known)}; a file of yours goes without it."
        )
    return str(folder / f"{name}.yaml")


def main(arguments: list[str] | None = None) -> int:
    open_console()
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["predict"]:  # the room of predictions lies behind this one: it gets its own process
        return subprocess.run([sys.executable, "-m", "export", *arguments]).returncode
    parsed = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("finetune").setLevel(logging.INFO)
    try:
        return act(parsed, arguments) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, MachineFault) else 2
    except (OSError, MemoryError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped. Computed features are kept; the same command continues from there.", file=sys.stderr)
        return 130


def act(parsed: argparse.Namespace, arguments: list[str]) -> int | None:
    """Returns the exit code where it is not 0."""
    if parsed.verb == "report":
        from finetune.ahead import named
        from finetune.evaluation import report

        print(report.write(named(Path(parsed.run))))
        return

    if parsed.verb == "compare":
        from finetune.evaluation.compare import compare, compare_recipes

        if not parsed.seeds.replace(",", "").isdigit():
            raise InputError(f"--seeds {parsed.seeds}: expected numbers, as in --seeds 1,2,3.")
        seeds = [int(seed) for seed in parsed.seeds.split(",")]
        if parsed.recipes and not (parsed.config or parsed.vary):
            compare_recipes(parsed.recipes, seeds, settings_of(parsed))
        elif parsed.config and parsed.vary and not parsed.recipes:
            compare(parsed.config, parsed.vary, seeds, settings_of(parsed))
        else:
            raise InputError("compare: give one recipe with --vary KEY=VALUE,VALUE, or several after --recipes.")
        return

    if parsed.verb == "insight":
        recipe, folder = what_to_look_at(parsed.given)
        if parsed.unlabelled and not (folder and len(parsed.given) == 1):
            raise InputError("insight --unlabelled: give one run folder, whose network is asked.")
        if len(parsed.given) == 2:
            from finetune.insight import two_runs

            print(two_runs.in_words(*map(Path, parsed.given)))
            return
        return work(parsed, load_config(recipe, settings_of(parsed)), [folder])

    config = load_config(recipe_of(parsed), settings_of(parsed))
    if parsed.verb == "checks":
        from finetune import checks

        checks.show(config)
        return

    if getattr(parsed, "run_distribute", "false") == "true":
        work_with_others(parsed.verb, config)
        return
    if config.workers > 1 and parsed.verb in ("run", "train"):
        from finetune.device import let_ctrl_c_through
        from finetune.workers.start import start

        let_ctrl_c_through()  # SIGTERM as well: the workers are ended first
        if config.model.cut is not None:  # once, and not by each of them
            done = subprocess.run([sys.executable, "-m", "finetune", "features", *arguments[1:]])
            if done.returncode:
                sys.exit(done.returncode)  # it has said why
        start(arguments, config.workers)
        return

    from finetune.ahead import ahead_of

    with ahead_of(parsed.verb, config) as others:
        work(parsed, config, others)


def work_with_others(verb: str, config: Config) -> None:
    """One of the processes that `msrun` has started."""
    from finetune.device import init_device

    device = init_device(config.platform, config.device_id, config.threads, config.seed, many=True)

    from finetune import run

    run.with_others(verb, config, device)


def work(parsed: argparse.Namespace, config: Config, others: list[Ahead | Path | None]) -> int | None:
    """The verbs that need the device; `others` is what they get beside it. Returns the exit code where it is not 0."""
    from finetune.device import init_device

    device = init_device(config.platform, config.device_id, config.threads, config.seed)
    if parsed.verb == "shift":
        from finetune.evaluation import shift

        shift.show(parsed.runs, parsed.pixels, parsed.average)
        return
    if parsed.verb == "look":
        from finetune.evaluation import look_inside

        look_inside.show(parsed.run, parsed.picture)
        return
    if parsed.verb == "eval":
        from finetune.evaluation import evaluate_run

        evaluate_run.show(Path(parsed.run), parsed.dataset_path, config, device)
        return

    if parsed.verb == "insight" and parsed.unlabelled:
        from finetune.insight import unlabelled

        return 1 if unlabelled.show(*others, parsed.unlabelled, config, device) else 0

    from finetune import run
    from finetune.insight import look

    {"run": run.run, "train": run.train, "features": run.features, "insight": look.alone}[parsed.verb](
        config, device, *others
    )


def what_to_look_at(given: list[str]) -> tuple[str | None, Path | None]:
    """(the recipe, the run folder) of `insight`'s words: of a run folder both, of a recipe only the first."""
    if len(given) > 2:
        raise InputError(f"insight: {len(given)} words; give a recipe, a run folder, or two run folders to compare.")
    folder = Path(given[0]) if given and Path(given[0]).is_dir() else None
    if folder and not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no run folder. Pictures are given by --dataset_path {folder}.")
    return (str(folder / "config.yaml") if folder else given[0] if given else None), folder


def explain(error: OSError | MemoryError) -> str:
    """What the system said, with the file and what to do."""
    if isinstance(error, MemoryError):
        return (
            "There is too little memory. Close other programs, or give fewer --threads, and repeat the command; "
            "what is computed is kept."
        )
    where = f"{error.filename}: " if error.filename else ""
    advice = {
        errno.ENOSPC: "The disk is full: free some space and repeat the command; what is computed is kept.",
        errno.EACCES: "No permission: change its rights, or choose another place.",
        errno.EROFS: "The folder is read-only: choose another with --runs_dir or --cache_dir.",
    }.get(error.errno, "")
    return f"{where}{error.strerror or error}. {advice}".strip()


if __name__ == "__main__":
    exit_code = main()
    from finetune.device import leave

    leave(exit_code)
