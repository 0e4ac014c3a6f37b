"""Gradients through weights that the host lends for one call: the same as through weights that are there."""

from typing import Any

import comfy.model_management
import pytest
import torch
from torch import Tensor

from support.executor import Host
from support.families.states import with_lora
from support.gradients import Gradient, amg_gradient_node, gradients
from support.graphs import from_images
from support.graphs.checkpoint import LINKS, MEASURED, amg, ksampler, optimizer
from support.graphs.features import Feature
from support.lent_weights import DYNAMIC, STATES, lending, loaded, recast

PLAIN = Feature()
VANILLA = PLAIN.prompt(k=ksampler(steps=2))
FINITE_DIFFERENCES = 1e-3


def latents(host: Host, prompt: dict, given: dict[str, Any]) -> Tensor:
    return host.run(prompt, given)["k"][0]["samples"]


@pytest.fixture(scope="module")
def plain(host: Host, checkpoint) -> Gradient:
    return gradients(host, PLAIN, checkpoint)[0]


@pytest.mark.parametrize("state", STATES)
def test_the_optimizers_gradient(host: Host, checkpoint, plain, state: str) -> None:
    with lending(state) as lend:
        given = checkpoint | lend.checkpoint()
        before = latents(host, VANILLA, given)
        for checkpoints in ("off", "on", "full"):
            found, _ = gradients(host, PLAIN, given, checkpoints)
            assert found.error < FINITE_DIFFERENCES
            torch.testing.assert_close(found.gradient, plain.gradient, rtol=1e-5, atol=1e-7)
            assert torch.equal(latents(host, VANILLA, given), before)


@pytest.mark.skipif(not DYNAMIC, reason="an older host merges a LoRA when it loads")
@pytest.mark.parametrize("state", STATES)
def test_under_a_lora(host: Host, checkpoint, plain, state: str) -> None:
    patched, _ = gradients(host, PLAIN, {**checkpoint, "m": with_lora(checkpoint["m"])})
    with lending(state) as lend:
        found, _ = gradients(host, PLAIN, {**checkpoint, "m": with_lora(lend.checkpoint()["m"])})
    torch.testing.assert_close(found.gradient, patched.gradient, rtol=1e-3, atol=1e-5)
    assert (patched.gradient - plain.gradient).norm() > 0.05 * plain.gradient.norm(), "the LoRA matters"


@pytest.fixture(scope="module", params=[torch.float16, torch.bfloat16], ids=str)
def half(host: Host, checkpoint, request) -> tuple[torch.dtype, Gradient, Gradient]:
    """A precision; the gradient of plain weights in it, and that of the same weights in float64."""
    computed = (request.param, torch.float64)
    return request.param, *(gradients(host, PLAIN, checkpoint | loaded(request.param, t))[0] for t in computed)


@pytest.mark.parametrize("state", STATES)
def test_in_half_precision(host: Host, checkpoint, half, state: str) -> None:
    """Too coarse for differences: equal to plain weights bit by bit, which differ from float64 only by rounding."""
    dtype, plain, exact = half
    with lending(state) as lend:
        found, _ = gradients(host, PLAIN, checkpoint | lend.checkpoint(dtype))
    assert torch.equal(found.gradient, plain.gradient)
    assert exact.error < FINITE_DIFFERENCES
    error = float((plain.gradient - exact.gradient).norm() / exact.gradient.norm())
    print(f"{state} {dtype}: {error:.1e} from float64, of which differences are {exact.error:.1e} away")
    assert 0 < error < plain.allowed


AMG = ("latent", "through model"), ("nL2", "through prediction"), ("descriptor", "through model")


@pytest.mark.parametrize(("metric", "way"), AMG)
@pytest.mark.parametrize("state", STATES)
def test_amg(host: Host, checkpoint, clip_vision, twins, images, state: str, metric: str, way: str) -> None:
    a = amg(**MEASURED, gradient=way, vae=["vae", 0])
    g = amg_gradient_node(twins, **{**LINKS, "model": ["a", 0]})
    with lending(state) as lend:
        vision = {"descriptor": lend.clip_vision(recast(clip_vision, torch.float16))}
        given = checkpoint | twins | images | lend.checkpoint() | vision
        given["vae"].process_output = torch.sigmoid  # the host clamps: differences would see the kinks
        first = latents(host, VANILLA, given)
        found = host.run(PLAIN.prompt(refs=from_images(metric), a=a, g=g), given)["g"][0]
        assert torch.equal(latents(host, VANILLA, given), first)
    print(f"{state}, {metric} {way}: {found.said}")
    assert found.good and found.error < FINITE_DIFFERENCES


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
