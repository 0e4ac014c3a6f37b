"""Gradients through weights that the host lends for one call: the same as through weights that are there."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import pytest
import torch
from torch import Tensor

from support.executor import Host
from support.families.states import with_lora
from support.gradients import gradients
from support.graphs import from_images
from support.graphs.checkpoint import amg, ksampler, optimizer
from support.graphs.features import Feature
from support.lent_weights import DYNAMIC, STATES, lending

PLAIN = Feature()
VANILLA = PLAIN.prompt(k=ksampler(steps=2))
FINITE_DIFFERENCES = 1e-3


def latents(host: Host, prompt: dict, given: dict[str, Any]) -> Tensor:
    return host.run(prompt, given)["k"][0]["samples"]


@pytest.mark.parametrize("state", STATES)
def test_the_optimizers_gradient(host: Host, checkpoint, state: str) -> None:
    expected, _ = gradients(host, PLAIN, checkpoint)
    with lending(state) as lend:
        given = checkpoint | lend.checkpoint()
        before = latents(host, VANILLA, given)
        for checkpoints in ("off", "on", "full"):
            found, _ = gradients(host, PLAIN, given, checkpoints)
            assert found.error < FINITE_DIFFERENCES
            torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-5, atol=1e-7)
            assert torch.equal(latents(host, VANILLA, given), before)


@pytest.mark.skipif(not DYNAMIC, reason="an older host merges a LoRA and casts when it loads")
@pytest.mark.parametrize("state", STATES)
def test_under_a_lora_and_in_half_precision(host: Host, checkpoint, state: str) -> None:
    patched, _ = gradients(host, PLAIN, {**checkpoint, "m": with_lora(checkpoint["m"])})
    single, _ = gradients(host, PLAIN, checkpoint)
    with lending(state) as lend:
        found, _ = gradients(host, PLAIN, {**checkpoint, "m": with_lora(lend.checkpoint()["m"])})
        half, _ = gradients(host, PLAIN, {**checkpoint, "m": lend.checkpoint(torch.float16)["m"]})
    torch.testing.assert_close(found.gradient, patched.gradient, rtol=1e-3, atol=1e-5)
    assert (patched.gradient - single.gradient).norm() > 0.05 * single.gradient.norm(), "the LoRA matters"
    pair = half.gradient.flatten(1), single.gradient.flatten(1)
    assert torch.nn.functional.cosine_similarity(*pair).min() > 0.999


EVERY_NETWORK = "descriptor", "through model"
AMG = [(state, *EVERY_NETWORK) for state in STATES]
AMG += [("evicted", "nL2", "through prediction"), ("evicted", "latent", "through model")]


@pytest.mark.parametrize(("state", "metric", "gradient"), AMG)
def test_amg(host: Host, checkpoint, clip_vision, state: str, metric: str, gradient: str) -> None:
    draw = torch.Generator().manual_seed(0)
    given = {**checkpoint, "descriptor": clip_vision, "i": torch.rand(52, 64, 64, 3, generator=draw)}
    guided = PLAIN.prompt(
        refs=from_images(metric),
        g=amg(dissimilarity=30.0, threshold_min=-1.0, threshold_max=-1.0, gradient=gradient, vae=["vae", 0]),
        k=ksampler(model=["g", 0], steps=2),
    )
    vanilla, expected = latents(host, VANILLA, given), latents(host, guided, given)
    assert (expected - vanilla).norm() > 1e-3 * vanilla.norm(), "it steers"
    with lending(state) as lend:
        given = given | lend.checkpoint() | {"descriptor": lend.clip_vision(clip_vision)}
        first = latents(host, VANILLA, given)
        found = latents(host, guided, given)
        assert torch.equal(latents(host, VANILLA, given), first)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_optimizer_descends_under_pressure(host: Host, checkpoint) -> None:
    plan = {"learning_rate": 0.03, "max_iterations": 5}
    with lending("evicted") as lend:
        report = host.run(PLAIN.prompt(o=optimizer(**plan)), checkpoint | lend.checkpoint())["o"][1]
    assert (report.after < 0.9 * report.before).all()


def test_auto_counts_the_copies_of_lent_weights_and_the_model_beside_them(host: Host, checkpoint, monkeypatch) -> None:
    memory = host.module("memorization_guard", "adapter.autograd.checkpointing")
    batch = torch.zeros(2, 4, 8, 8)
    with lending("evicted") as lend:
        patcher = lend.checkpoint()["m"]
        host.run(VANILLA, {**checkpoint, "m": patcher})
        copies = memory.copied_weights([patcher], [], torch.float32)
        assert 0.9 * patcher.model_size() < copies <= patcher.model_size()
        needed = memory.graph_memory(patcher.model, batch.shape) + copies + (patcher.model_size() if DYNAMIC else 0)
        for free, blocks in ((needed + 1, 0), (needed - 1, len(memory.blocks_to_recompute([patcher], "on", batch)))):
            monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_: free)  # noqa: B023
            assert len(memory.blocks_to_recompute([patcher], "auto", batch)) == blocks
