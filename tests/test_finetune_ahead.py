"""Commands that are started ahead of their turn end when they should."""

import subprocess

import pytest
from conftest import CHECKOUT

from finetune.ahead import Ahead


def test_ctrl_c_while_it_works_ends_it(monkeypatch):
    server = Ahead("http.server", "0", "--bind", "127.0.0.1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server.start()
    wait = server.process.wait

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(server.process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.wait()
    assert wait(timeout=30) != 0


def test_one_that_has_failed_before_it_was_told_says_so(tmp_path):
    missing = Ahead("finetune", "no-such-verb", cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    missing.start()
    missing.process.wait()
    missing.tell(tmp_path)
    assert missing.wait() is False
