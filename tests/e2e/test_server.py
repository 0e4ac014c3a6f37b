"""Our calls tell the truth about a real server; `make demo` in small on it; `make gpu-check` finds what is planted."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from support import small_lab
from support.paths import ROOT, SMALL_CHECKPOINT
from support.server import Server, ServerError
from support.small_lab import SIZE, is_copy, training_pairs
from tools.demo.measure import Subject, ask
from tools.demo.methods import BATCH_WISE, DYNAMIC, PER_SAMPLE, PLAIN, Setting
from tools.dev import gpu_check


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerError, match="is taken"):
            Server(port=taken.getsockname()[1]).__enter__()


def _hears_ctrl_c() -> None:
    """A shell's background jobs, and all that they start, are deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals as on Linux")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_make_serve_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / "tools" / "dev" / "serve.py"), "--port", "0", "--base", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_hears_ctrl_c) as process:
        try:
            assert process.stdout
            address = next(line.strip() for line in process.stdout if "http://" in line)
            process.send_signal(how)
            assert process.wait(30) == (0 if how == signal.SIGINT else -how)
        finally:
            process.kill()
    port = int(address.rsplit(":", 1)[1])
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.2)
    pytest.fail(f"the server at {address} is still there")


STRENGTHS = {PER_SAMPLE: small_lab.PER_SAMPLE, BATCH_WISE: small_lab.BATCH_WISE, DYNAMIC: small_lab.DEFERRED}
SETTING = Setting(SMALL_CHECKPOINT.name, 1, SIZE, {}, STRENGTHS, **small_lab.BATCH_WISE_START, is_copy=is_copy)
pytestmark = pytest.mark.timeout(600)


def test_it_copies_with_cfg_and_not_with_a_mitigation(server: Server) -> None:
    def copied(method: str, setting: Setting = SETTING) -> bool:
        return ask(server, setting, Subject(*training_pairs()[0]), method, 0).copied == [True]

    assert copied(PLAIN) and not copied(PLAIN, replace(SETTING, plan={"cfg": 0.0}))
    assert [method for method in STRENGTHS if copied(method)] == []


def test_the_demo_says_which_checkpoint_is_missing() -> None:
    env = {**os.environ, "CHECKPOINT": "/nowhere/model.safetensors", "PROMPT": "a ring"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo" / "demo.py")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "/nowhere/model.safetensors is not a file" in done.stderr


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
