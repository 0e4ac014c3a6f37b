"""The small lab on a real server: it memorizes, and the pack helps. `make demo` in small."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from support import lab_strengths
from support.paths import ROOT, SMALL_CHECKPOINT
from support.server import Server
from support.small_lab import SIZE, is_copy, training_pairs
from tools.demo.measure import Subject, ask
from tools.demo.methods import BATCH_WISE, DYNAMIC, PER_SAMPLE, PLAIN, Setting

STRENGTHS = {
    PER_SAMPLE: lab_strengths.PER_SAMPLE,
    BATCH_WISE: lab_strengths.BATCH_WISE,
    DYNAMIC: lab_strengths.DEFERRED,
}
SETTING = Setting(SMALL_CHECKPOINT.name, 1, SIZE, {}, STRENGTHS, **lab_strengths.BATCH_WISE_START, is_copy=is_copy)
pytestmark = pytest.mark.timeout(600)


def test_it_copies_with_cfg_and_not_with_a_mitigation(server: Server) -> None:
    def copied(method: str, setting: Setting = SETTING) -> bool:
        return ask(server, setting, Subject(*training_pairs()[0]), method, 0).copied == [True]

    assert copied(PLAIN) and not copied(PLAIN, replace(SETTING, plan={"cfg": 0.0}))
    assert [method for method in STRENGTHS if copied(method)] == []


def test_an_ordinary_prompt_gives_ksamplers_image(server: Server) -> None:
    subject = Subject("a disc")
    plain = ask(server, SETTING, subject, PLAIN, 1)  # another number, or the meter goes on counting
    dynamic = ask(server, SETTING, subject, DYNAMIC, 2)
    for a, b in zip(plain.images, dynamic.images, strict=True):
        assert np.array_equal(a, b)
    assert dynamic.told["rows"] == plain.told["rows"] == 2 * 50 * SETTING.count


def test_the_demo_says_which_checkpoint_is_missing() -> None:
    env = {**os.environ, "CHECKPOINT": "/nowhere/model.safetensors", "PROMPT": "a ring"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo" / "demo.py")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "/nowhere/model.safetensors is not a file" in done.stderr
