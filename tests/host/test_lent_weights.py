"""The pack's gradients through weights that the host lends for one call, holds in half precision, or keeps elsewhere.

And AMG's against finite differences, inside a run on the exact model.
"""

from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import LowVramPatch
from torch import Tensor

from support import graphs
from support.executor import Host
from support.families import cells, files
from support.families.kinds import STATES as LEFT_BEHIND
from support.families.kinds import with_lora
from support.gradients import Gradient, amg_gradient_node, checked, gradient
from support.graphs import from_images
from support.graphs.checkpoint import LINKS, MEASURED, amg, ksampler, load
from support.graphs.features import Feature
from support.lab_pack import exact
from support.lent_weights import DYNAMIC, STATES, lending, loaded, recast

PLAIN = Feature()
VANILLA = PLAIN.prompt(k=ksampler(steps=2))
FINITE_DIFFERENCES = 1e-3
HALVES = [torch.float16, torch.bfloat16]
AMG = ("latent", "through model"), ("nL2", "through prediction"), ("descriptor", "through model")


def latents(host: Host, prompt: dict, given: dict[str, Any]) -> Tensor:
    return host.run(prompt, given)["k"][0]["samples"]


@pytest.fixture(scope="module")
def plain(host: Host, checkpoint) -> Gradient:
    """Through weights that are there; it is what finite differences give."""
    found = checked(host, PLAIN, checkpoint)
    assert found.error < FINITE_DIFFERENCES
    return found


@pytest.mark.parametrize("state", STATES)
def test_the_optimizers_gradient(host: Host, checkpoint, plain, state: str) -> None:
    with lending(state) as lend:
        given = checkpoint | lend.checkpoint()
        before = latents(host, VANILLA, given)
        for checkpoints in ("off", "on", "full") if DYNAMIC or state == "evicted" else ("on",):
            found = gradient(host, PLAIN, given, checkpoints)
            torch.testing.assert_close(found.gradient, plain.gradient, rtol=1e-5, atol=1e-7)
            assert torch.equal(latents(host, VANILLA, given), before)


@pytest.mark.skipif(not DYNAMIC, reason="an older host merges a LoRA when it loads")
@pytest.mark.parametrize("state", STATES)
def test_under_a_lora(host: Host, checkpoint, plain, state: str) -> None:
    patched = gradient(host, PLAIN, {**checkpoint, "m": with_lora(checkpoint["m"])})
    with lending(state) as lend:
        found = gradient(host, PLAIN, {**checkpoint, "m": with_lora(lend.checkpoint()["m"])})
    torch.testing.assert_close(found.gradient, patched.gradient, rtol=1e-3, atol=1e-5)
    assert (patched.gradient - plain.gradient).norm() > 0.05 * plain.gradient.norm(), "the LoRA matters"


@pytest.fixture(scope="module", params=HALVES, ids=str)
def half(host: Host, checkpoint, request) -> tuple[torch.dtype, Gradient]:
    """A precision, and the gradient of plain weights in it, which differs from that in float64 only by rounding."""
    plain = gradient(host, PLAIN, checkpoint | loaded(request.param, request.param))
    precise = gradient(host, PLAIN, checkpoint | loaded(request.param, torch.float64), differences=True)
    assert precise.error < FINITE_DIFFERENCES
    assert 0 < (plain.gradient - precise.gradient).norm() / precise.gradient.norm() < plain.allowed
    return request.param, plain


def test_in_half_precision(host: Host, checkpoint, half) -> None:
    """Too coarse for differences: equal to plain weights bit by bit. In fp16, which CPUs have no kernels for, once."""
    dtype, plain = half
    for state in STATES if dtype == torch.bfloat16 else ("evicted",):
        with lending(state) as lend:
            found = gradient(host, PLAIN, checkpoint | lend.checkpoint(dtype))
        assert torch.equal(found.gradient, plain.gradient), state


def guided(host: Host, given: dict[str, Any], metric: str, way: str, twins: dict[str, Any] | None = None) -> Gradient:
    """All gradients of a guided run, beside finite differences if their networks are given."""
    a = amg(**MEASURED, gradient=way, vae=["vae", 0])
    g = amg_gradient_node(twins or {}, bool(twins), **{**LINKS, "model": ["a", 0]})
    given["i"] = given["i"] if metric == "nL2" else given["i"][:3]
    given["vae"].process_output = torch.sigmoid  # the host clamps: differences would see the kinks
    return host.run(PLAIN.prompt(refs=from_images(metric), a=a, g=g), {**given, **(twins or {})})["g"][0]


@pytest.fixture(scope="module", params=AMG, ids=" ".join)
def way(host: Host, checkpoint, clip_vision, twins, images, request) -> tuple[tuple[str, str], Gradient]:
    """A metric and a way, and the gradient through weights that are there; it is what finite differences give."""
    vision = {"descriptor": recast(clip_vision, torch.float16)}
    found = guided(host, checkpoint | images | loaded() | vision, *request.param, twins)
    assert found.good and found.error < FINITE_DIFFERENCES, found.said
    return request.param, found


def test_amg(host: Host, checkpoint, clip_vision, images, way) -> None:
    """Each network in each state; on older hosts each in some of them."""
    how, plain = way
    scale = float(plain.gradient.abs().max())
    few = ("evicted", *[s for s in STATES if s != "evicted"][AMG.index(how) :: len(AMG)])
    for state in STATES if DYNAMIC else few:
        with lending(state) as lend:
            vision = {"descriptor": lend.clip_vision(recast(clip_vision, torch.float16))}
            given = checkpoint | images | lend.checkpoint() | vision
            first = latents(host, VANILLA, given)
            found = guided(host, given, *how)
            assert torch.equal(latents(host, VANILLA, given), first)
        torch.testing.assert_close(found.gradient, plain.gradient, rtol=1e-4, atol=1e-4 * scale, msg=state)


# The other ways of each metric are above, on the small lab.
EXACT = [("latent", "prediction", "eps"), ("nL2", "model", "eps"), ("descriptor", "prediction", "eps")]
EXACT += [("latent", "model", kind) for kind in ("v", "flow")]


@pytest.mark.parametrize(("metric", "through", "kind"), EXACT)
def test_amg_on_the_exact_model(host: Host, clip_vision, twins, images, metric, through, kind) -> None:
    """With despecification, which the gradient through the model includes."""
    twin = exact.build(kind)
    twin.model.diffusion_model.dtype = torch.float64  # what the host casts the model's input to
    given = {**load(host), **twins, "descriptor": recast(clip_vision, torch.float16), "exact_model": twin}
    given["vae"].process_output = torch.sigmoid  # the host clamps: differences would see the kinks
    given["i"] = images["i"] if metric == "nL2" else images["i"][:3]
    strengths = {**MEASURED, "despecification": 2.0, "gradient": f"through {through}", "vae": ["vae", 0]}
    links = {"positive": graphs.ORDINARY, "negative": graphs.NULL, "latent_image": graphs.LATENT}
    prompt = {"lab": graphs.lab(2, kind), "refs": from_images(metric), "a": graphs.amg(**strengths)}
    found = host.run({**prompt, "g": amg_gradient_node(twins, model=["a", 0], **links)}, given)["g"][0]
    print(f"{metric} through {through}, {kind}: {found.said}")
    assert found.good and found.error < FINITE_DIFFERENCES


@pytest.mark.parametrize("name", ["fp32, LoRA, --lowvram", "fp32, LoRA, --novram"])
def test_weights_that_stay_behind_are_patched_for_each_use(host: Host, name: str) -> None:
    """Under the same LoRA the images are those of the model that is there as a whole."""
    found = []
    for state in (LEFT_BEHIND["fp32, LoRA"], LEFT_BEHIND[name]):
        found.append(cells.Bench(host, files.SD1, files.SD1.made(state)))
    inner = found[1].given["m"].model
    functions = [f for m in inner.modules() for f in getattr(m, "weight_function", [])]
    assert inner.model_lowvram and any(isinstance(f, LowVramPatch) for f in functions)
    torch.testing.assert_close(found[1].vanilla, found[0].vanilla, atol=1e-3, rtol=1e-3)
    ours = [bench.found("per-sample", max_iterations=2, learning_rate=0.03)[1] for bench in found]
    assert (ours[1].after < ours[1].before).all()
    torch.testing.assert_close(ours[1].after, ours[0].after, rtol=1e-2, atol=0)


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
