"""Commands started ahead of their turn: they import what they need while this process has a core to spare.

Importing MindSpore or matplotlib takes seconds, in which this process imports or trains, on little more than one core.
Such a command is given "-" for the run folder, and reads the folder's name from standard input when it is ready.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from finetune.config import Config
from finetune.workers.start import environment_alone


class Ahead:
    """`with Ahead("finetune", "report", "-") as report:` runs `python -m finetune report -` beside the block.

    With the block it ends as well: without a word where it has not been told the name.
    """

    def __init__(self, *command: str, **options):
        self.command, self.options = (sys.executable, "-m", *command), options
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Ahead:
        # A session of its own: Ctrl-C in a terminal is for this process.
        own = {"stdin": subprocess.PIPE, "env": environment_alone(), "start_new_session": True}
        self.process = subprocess.Popen(self.command, **own, **self.options)
        return self

    def tell(self, folder: Path) -> None:
        with contextlib.suppress(BrokenPipeError), self.process.stdin as told:  # it has failed: `done` says so
            told.write(os.fsencode(folder))

    def done(self) -> bool:
        """Wait for it. Whether it has done its work."""
        return self.process.wait() == 0

    def __exit__(self, *error) -> None:
        if not self.process.stdin.closed:
            self.process.stdin.close()
        elif self.process.poll() is None:
            self.process.terminate()


@contextlib.contextmanager
def ahead_of(verb: str, config: Config) -> Iterator[list[Ahead]]:
    """What a verb ends with, the report first, started and ready to be told."""
    with contextlib.ExitStack() as stack:
        commands = []
        if verb in ("run", "train"):
            commands.append(Ahead("finetune", "report", "-", stdout=subprocess.DEVNULL))
        if verb == "run":
            wanted = ("--file_format", *config.export.file_format, "--input_form", *config.export.input_form)
            if config.export.precision:
                wanted += ("--precision", *config.export.precision, "--allowed_loss", str(config.export.allowed_loss))
            commands.append(Ahead("export", "-", *wanted))
        yield [stack.enter_context(command) for command in commands]


def named(run: Path) -> Path:
    """The folder that a command was given, or is told on standard input; ends where nobody is left to tell it."""
    if run != Path("-"):
        return run
    name = sys.stdin.buffer.read()
    if not name:
        sys.exit(1)  # who started it has said why
    return Path(os.fsdecode(name))
