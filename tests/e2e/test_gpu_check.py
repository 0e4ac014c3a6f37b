"""`make gpu-check` on a CPU, where it says nothing about a GPU, but must find what is planted."""

import sys

import pytest

from support.families import files
from tools.dev import gpu_check

STATE = gpu_check.DEFAULT


def check(monkeypatch: pytest.MonkeyPatch, flags: str = "") -> int:
    """One family in one state, and the gradient of d."""
    monkeypatch.setattr(sys, "argv", ["gpu_check", STATE])
    monkeypatch.setitem(gpu_check.STATES, STATE, flags)
    monkeypatch.setattr(gpu_check, "wanted", lambda fast: [])
    monkeypatch.setattr(gpu_check, "gradients", lambda *_: [])
    return gpu_check.main()


@pytest.mark.parametrize(
    ("fault", "said"), [("", ""), ("gradient", "wrong by"), ("weights", "the weights are not what they were")]
)
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, capsys, fault: str, said: str) -> None:
    monkeypatch.setenv("MG_CHECK_FAULT", fault)
    status = check(monkeypatch)
    report = capsys.readouterr().out.partition("--- paste from here ---")[2]
    assert files.SD1.name in report
    assert status == bool(fault), report
    assert said in report
    assert ("\n0 failed" in report) == (not fault)


def test_a_host_that_does_not_start_gives_its_reason_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert check(monkeypatch, "--reserve-vram much") == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(STATE) and "argument --reserve-vram: invalid float value: 'much'" in last
