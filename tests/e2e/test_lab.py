"""The small lab on a real server: it memorizes, and the pack helps. `make demo` in small."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from support import lab_strengths
from support.client import PromptError
from support.paths import ROOT, SMALL_CHECKPOINT
from support.server import Server
from support.small_lab import COPY_RMSE, SIZE, is_copy, rmse, training_pairs
from tools.demo.measure import Subject, ask, share
from tools.demo.methods import BATCH_WISE, DYNAMIC, PER_SAMPLE, PLAIN, Setting, prompt

COUNT, PROMPTS = 1, (0,)
STRENGTHS = {
    PER_SAMPLE: lab_strengths.PER_SAMPLE,
    BATCH_WISE: lab_strengths.BATCH_WISE,
    DYNAMIC: lab_strengths.DEFERRED,
}
SETTING = Setting(SMALL_CHECKPOINT.name, COUNT, SIZE, {}, STRENGTHS, **lab_strengths.BATCH_WISE_START, is_copy=is_copy)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def copies(server: Server):
    """copies(method): the share of copies among the images of a memorized prompt."""
    pairs = training_pairs()

    def measure(method: str, setting: Setting = SETTING) -> float:
        subjects = [Subject(*pairs[i]) for i in PROMPTS]
        for i, subject in enumerate(subjects):
            subject.rows[method] = ask(server, setting, subject, method, i)
        return share(subjects, method)

    return measure


def test_no_two_memorized_images_pass_for_each_other() -> None:
    images = [image for _, image in training_pairs()]
    nearest = min(rmse(a, b) for i, a in enumerate(images) for b in images[:i])
    assert nearest > COPY_RMSE


def test_it_copies_with_cfg_and_not_without(copies) -> None:
    assert copies(PLAIN) >= 0.8
    assert copies(PLAIN, replace(SETTING, plan={"cfg": 0.0})) <= 0.05


@pytest.mark.parametrize("method", STRENGTHS)
def test_each_mitigation_helps(copies, method: str) -> None:
    assert copies(method) <= 0.25


def test_an_ordinary_prompt_gives_ksamplers_image(server: Server) -> None:
    subject = Subject("a disc")
    plain = ask(server, SETTING, subject, PLAIN, 1)  # another number, or the meter goes on counting
    dynamic = ask(server, SETTING, subject, DYNAMIC, 2)
    for a, b in zip(plain.images, dynamic.images, strict=True):
        assert np.array_equal(a, b)
    assert dynamic.told["rows"] == plain.told["rows"] == 2 * 50 * SETTING.count


def test_a_missing_checkpoint_is_refused_before_anything_runs(server: Server) -> None:
    given = prompt(Setting("no-such-file.safetensors", 1), "a ring", DYNAMIC, 0)
    with pytest.raises(PromptError) as caught:
        server.run(given)
    assert caught.value.kind == "validation" and "no-such-file.safetensors" in caught.value.message


def test_the_demo_says_which_checkpoint_is_missing() -> None:
    env = {**os.environ, "CHECKPOINT": "/nowhere/model.safetensors", "PROMPT": "a ring"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo" / "demo.py")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "/nowhere/model.safetensors is not a file" in done.stderr
