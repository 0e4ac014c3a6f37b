"""The lab checkpoint on a real server: it memorizes, and the pack helps. `make demo` in small."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from lab import scenes
from lab.copies import COPY_RMSE, rmse, training_pairs
from support.client import PromptError
from support.paths import ROOT
from support.server import Server
from tools.demo.measure import Subject, ask, share_of_copies
from tools.demo.methods import Setting, prompt

COUNT = 1
PROMPTS = (0, 7)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def share(server: Server):
    """share(method): the share of copies among the images of two memorized prompts."""
    pairs = training_pairs()
    subjects = [Subject(*pairs[i]) for i in PROMPTS]

    def measure(method: str) -> float:
        return share_of_copies(ask(server, Setting.for_lab(COUNT), s, method, i) for i, s in enumerate(subjects))

    return measure


def test_the_training_images_are_what_the_generator_draws() -> None:
    for (caption, image), pair in zip(training_pairs(), scenes.memorized(), strict=True):
        assert caption == pair.caption
        assert np.array_equal(image, pair.scene.image)


def test_no_two_memorized_images_pass_for_each_other() -> None:
    images = [image for _, image in training_pairs()]
    nearest = min(rmse(a, b) for i, a in enumerate(images) for b in images[:i])
    assert nearest > COPY_RMSE


def test_it_copies_with_cfg_and_not_without(share) -> None:
    assert share("no mitigation") >= 0.8
    assert share("without CFG") <= 0.05


@pytest.mark.parametrize("method", ["dynamic deferral", "batch-wise + deferred", "per-sample noise"])
def test_each_mitigation_helps(share, method: str) -> None:
    assert share(method) <= 0.25


def test_an_ordinary_prompt_gives_ksamplers_image(server: Server) -> None:
    setting, subject = Setting.for_lab(COUNT), Subject("a disc")
    plain = ask(server, setting, subject, "no mitigation", 0)
    dynamic = ask(server, setting, subject, "dynamic deferral", 1)
    for a, b in zip(plain.images, dynamic.images, strict=True):
        assert np.array_equal(a, b)
    assert dynamic.told["rows"] == plain.told["rows"] == 2 * 50 * COUNT


def test_a_missing_checkpoint_is_refused_before_anything_runs(server: Server) -> None:
    given = prompt(Setting("no-such-file.safetensors", 1), "a ring", "dynamic deferral", 0)
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
