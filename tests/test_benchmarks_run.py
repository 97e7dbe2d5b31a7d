"""A comparison takes an hour: what it has measured is on disk before anything later can break."""

import sys

import pytest

from benchmarks import run, tables


def test_each_section_is_written_when_it_is_measured(tmp_path, monkeypatch):
    def breaks(*_):
        raise RuntimeError("the peer is gone")

    monkeypatch.setattr(run, "start", lambda *_: {})
    monkeypatch.setattr(run, "machine", lambda _: "a machine")
    monkeypatch.setattr(run, "PARTS", {"head": lambda *_: "## Head: 0.3 s", "whole": breaks})
    out = tmp_path / "results.md"
    inputs = ["--dataset_path", str(tmp_path), "--pretrain_ckpt", "x.ckpt", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["run", *inputs])
    with pytest.raises(RuntimeError, match="the peer is gone"):
        run.main()
    assert out.read_text(encoding="utf-8") == "# Results\n\na machine\n\n## Head: 0.3 s\n"


def test_versions_come_from_the_modules(tmp_path, monkeypatch):
    (tmp_path / "peer_cpu.py").write_text("__version__ = '7.1'\n", encoding="utf-8")  # no package index knows it
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert tables.version_of("peer_cpu") == "7.1"
    assert tables.version_of("no_such_peer") is None
