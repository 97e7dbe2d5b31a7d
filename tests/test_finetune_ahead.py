"""Commands that are started ahead of their turn end when they should."""

import subprocess

import pytest
from conftest import CHECKOUT

from finetune.ahead import Ahead


def test_ctrl_c_while_it_works_ends_it(tmp_path):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with pytest.raises(KeyboardInterrupt), Ahead("http.server", "0", "--bind", "127.0.0.1", **quiet) as server:
        server.tell(tmp_path)
        raise KeyboardInterrupt
    assert server.process.wait(timeout=30) != 0


def test_one_that_has_failed_before_it_was_told_says_so(tmp_path):
    with Ahead("finetune", "no-such-verb", cwd=CHECKOUT, stderr=subprocess.DEVNULL) as missing:
        missing.process.wait()
        missing.tell(tmp_path)
        assert missing.done() is False


def test_an_error_before_it_is_told_ends_it_without_a_word(tmp_path):
    with pytest.raises(ValueError), Ahead("export", "-", cwd=CHECKOUT, stderr=subprocess.PIPE) as export:
        raise ValueError
    assert export.process.stderr.read() == b"" and export.process.wait(timeout=60) == 1
