"""`make gpu-check` on a CPU, where it says nothing about a GPU, but must find what is planted."""

import sys
from functools import partial
from pathlib import Path

import pytest

from tools.dev import gpu_check

STATE = gpu_check.DEFAULT
SOME = ("Detector", "Sampler, dynamic", "Optimizer, per-sample", "AMG, deduplication", "Gradient")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu_check.configure(tmp_path, "--cpu")  # before anything of the host is imported
    from support.families import cells

    monkeypatch.setattr(sys, "argv", ["gpu_check", STATE])
    monkeypatch.setattr(cells, "row", partial(cells.row, only=SOME))
    monkeypatch.setattr(gpu_check, "wanted", lambda: [])
    monkeypatch.setattr(gpu_check, "gradients", lambda *_: [])


@pytest.mark.parametrize(
    ("fault", "said"), [("", ""), ("gradient", "wrong by"), ("weights", "the weights are not what they were")]
)
def test_a_planted_fault_is_found(small: None, monkeypatch: pytest.MonkeyPatch, capsys, fault: str, said: str) -> None:
    monkeypatch.setenv("MG_CHECK_FAULT", fault)
    status = gpu_check.main()
    report = capsys.readouterr().out.partition("--- paste from here ---")[2]
    assert "SD1.x" in report
    assert status == bool(fault), report
    assert said in report
    assert ("\n0 failed" in report) == (not fault)


def test_a_host_that_does_not_start_gives_its_reason_in_one_line(small: None, monkeypatch, capsys) -> None:
    monkeypatch.setitem(gpu_check.STATES, STATE, "--reserve-vram much")
    assert gpu_check.main() == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(STATE) and "argument --reserve-vram: invalid float value: 'much'" in last
