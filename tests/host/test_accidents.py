"""Inputs that do not fit are refused in a sentence; and after every accident at every phase the host is as it was."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from support import graphs
from support.accidents import Trouble, hooked, left_behind, slots
from support.executor import Host, NodeError, Prompt
from support.graphs import amg, deferred, detector, faulty, ksampler, lab, optimizer, patch, references
from support.lab_pack import exact
from support.lab_pack.meter import Meter
from support.outcomes import fails, pixel_set, refused, samples


@pytest.mark.parametrize("shape", [(2, 4, 8, 16), (3, 4, 8, 8)])
def test_a_noise_or_a_curve_of_another_shape_or_batch_names_both(host: Host, shape: tuple[int, ...]) -> None:
    prompt = {"lab": lab(2), "o": optimizer(), "k": deferred(noise=["o", 0], latent_image=["w", 0])}
    message = refused(host, prompt, {"w": {"samples": torch.zeros(shape)}})
    assert "2 × 4 × 8 × 8" in message and " × ".join(map(str, shape)) in message and "latent_image" in message
    more, known = {"latent_image": ["more", 4]}, {"curve": ["d", 3]}
    prompt = {"lab": lab(2), "more": lab(3), "d": detector()}
    for ours in ({"k": deferred(**known, **more)}, {"p": patch(**known), "k": ksampler(model=["p", 0], **more)}):
        message = refused(host, prompt | ours)
        assert "`curve`" in message and "batch of 2" in message and "has 3" in message


@pytest.mark.parametrize("node", [optimizer, detector, deferred])
def test_a_latent_that_is_empty_or_of_another_family(host: Host, node) -> None:
    prompt = {"lab": lab(2), "n": node(latent_image=["e", 0])}
    message = refused(host, prompt, {"e": {"samples": torch.zeros(0, 4, 8, 8)}})
    assert "`latent_image` is empty" in message and "0 × 4 × 8 × 8" in message
    message = refused(host, prompt, {"e": {"samples": torch.ones(1, 16, 8, 8)}})
    assert "16 channels" in message and "works with 4" in message
    if node is detector:  # a schedule of one value
        short = {"lab": lab(1), "d": detector(sigmas=["s", 0])}
        assert "at least two" in refused(host, short, {"s": torch.tensor([14.6])})


def refuses(host: Host, node: str, *says: str, captions: str = "", given: dict | None = None, **changed: Any) -> None:
    """This node refuses in these words, and nothing was evaluated."""
    meter = Meter()
    given = {"works": {"samples": exact.x_mem()}, "m": hooked(exact.build(), meter)} | (given or {})
    nodes = {"g": amg(**{"model": ["m", 0], **changed}), "k": ksampler(model=["g", 0])}
    error = fails(host, {"lab": lab(2), "refs": references(captions), **nodes}, given)
    assert error.kind.endswith("GuardError") and error.node_id == node, error
    assert all(words in error.message for words in says), error
    assert meter.rows == 0


def a_set(host: Host, metric: str, count: int, dim: tuple[int, ...], **extra: Any) -> Any:
    kind = host.module("memorization_guard", "mitigation.references.reference_set").ReferenceSet
    size = int(torch.tensor(dim).prod())
    blank = ("",) * count
    return kind(metric, torch.ones(count, size).half(), dim, blank, blank, **extra)


def test_amg_names_what_is_missing_or_does_not_fit(host: Host, vae: Any) -> None:
    wanted, advice = {"deduplication": 5.0, "clip": ["clip", 0]}, "set deduplication to 0"
    refuses(host, "g", "deduplication needs captions", advice, given={"clip": exact.TextEncoder()}, **wanted)
    refuses(host, "g", "connect `clip`", advice, captions="a ring", deduplication=5.0)
    refuses(host, "g", "`threshold_min`", "`threshold_max`", threshold_min=0.7)
    wide, deep = ({"works": {"samples": torch.randn(1, *shape)}} for shape in ((4, 8, 16), (16, 8, 8)))
    refuses(host, "k", "4 × 8 × 16", "4 × 8 × 8", "`references`", given=wide)
    refuses(host, "g", "16 channels", "works with 4", given=deep)
    refuses(host, "g", "Connect a reference set", given={"s": {"samples": 1}}, references=["s", 0])
    links, vaes = {"references": ["s", 0]}, {"vae": ["v", 0]}
    pixels, plain = a_set(host, "nL2", 60, (3, 64, 64)), a_set(host, "descriptor", 60, (8,))
    named = a_set(host, "descriptor", 4, (8,), descriptor_name="SSCD")
    refuses(host, "g", "connect `vae`", "nL2", given={"s": pixels}, **links)
    refuses(host, "g", "connect `vae`", "descriptor", given={"s": plain}, **links)
    other = SimpleNamespace(latent_channels=16)
    refuses(host, "g", "16 channels", "`vae`", given={"s": pixels, "v": other}, **links, **vaes)
    refuses(host, "g", "SSCD", "not loaded", given={"s": named, "v": vae}, **links, **vaes)


def test_a_quantized_model_through_the_model(host: Host) -> None:
    prompt = {"lab": lab(2), "refs": references(), "f": faulty("quantized")}
    given = {"works": {"samples": exact.x_mem()}}
    error = fails(host, {**prompt, "g": amg(model=["f", 0], gradient="through model")}, given)
    assert error.node_id == "g" and "through prediction" in error.message
    out = host.run({**prompt, "g": amg(model=["f", 0]), "k": ksampler(model=["g", 0])}, given)["k"][0]
    assert not exact.is_copy(out).any(), "through the prediction it works"


ACCIDENTS = ["out of memory", "interrupt", "exception", "nan", "unload"]
MODEL, GUIDED = {"model": ["m", 0]}, {"model": ["g", 0]}
STEPS = {"steps": 12}
DESCENT = {"n": graphs.optimizer(**MODEL, max_iterations=6, learning_rate=0.05)}
SAMPLER = {"n": graphs.ksampler(**GUIDED, **STEPS)}
AMG = {"refs": graphs.references(), "g": graphs.amg(**MODEL)}
THROUGH = {"refs": graphs.references(), "g": graphs.amg(**MODEL, gradient="through model", threshold_min=0.1)}
CAPTIONS = {"refs": graphs.references("ordinary"), "g": graphs.amg(**MODEL, deduplication=5.0, clip=["clip", 0])}
LATENTS, EMBEDDINGS = graphs.from_images("latent"), graphs.from_images("descriptor")


def check(metric: str) -> Prompt:
    return {"n": graphs.check(f"{metric} set", vae=["vae", 0])}


def looking(metric: str, **changed: Any) -> Prompt:
    guide = graphs.amg(**MODEL, references=[f"{metric} set", 0], vae=["vae", 0], threshold_min=0.0, **changed)
    return {"g": guide, "n": graphs.ksampler(**GUIDED, steps=2)}


PHASES: dict[str, tuple[Prompt, dict[str, Any]]] = {  # prompt, and where the accident happens; the node is `n`
    "optimizer, first gradient": (DESCENT, {"at": 1, "graphs": True}),
    "optimizer, later gradient": (DESCENT, {"at": 4, "graphs": True}),
    "optimizer, on the way back": (DESCENT, {"at": 2, "graphs": True, "backwards": True}),
    "optimizer, search": ({"n": graphs.optimizer("search", **MODEL, candidates=5)}, {"at": 3}),
    "optimizer, batch-wise": ({"n": graphs.optimizer("batch-wise", **MODEL)}, {"at": 2}),
    "calibration": ({"n": graphs.calibrate("ordinary\nnull", **MODEL)}, {"at": 2}),
    "detector, first step": ({"n": graphs.detector(**MODEL, **STEPS)}, {"at": 1}),
    "detector, in the curve": ({"n": graphs.detector(**MODEL, **STEPS)}, {"at": 4}),
    "deferred, before the transition": ({"n": graphs.deferred(**MODEL, **STEPS)}, {"at": 3}),
    "deferred, after the transition": ({"n": graphs.deferred(**MODEL, **STEPS)}, {"at": 11}),
    "deferral as a patch": ({"g": graphs.patch(**MODEL), **SAMPLER}, {"at": 2}),
    "AMG, sampling": (AMG | SAMPLER, {"at": 5}),
    "AMG, with captions": (CAPTIONS | SAMPLER, {"at": 5}),
    "AMG, gradient through the model": (THROUGH | SAMPLER, {"at": 2, "graphs": True}),
    "AMG, on the way back": (THROUGH | SAMPLER, {"at": 1, "graphs": True, "backwards": True}),
    "AMG under deferral": ({**AMG, "n": graphs.deferred(**GUIDED, **STEPS)}, {"at": 6}),
    # In a network beside the model: see `network_of`.
    "references, of latents": ({"n": LATENTS}, {"at": 2}),
    "references, embedding": ({"n": EMBEDDINGS}, {"at": 2}),
    "copy check, of latents": (check("latent"), {"at": 2}),
    "copy check, embedding": (check("descriptor"), {"at": 2}),
    "AMG, decoding to look": (looking("descriptor"), {"at": 2}),
    "AMG, decoding for a gradient": (looking("descriptor"), {"at": 1, "graphs": True}),
    "AMG, decoding pixels, through the model": (looking("nL2", gradient="through model"), {"at": 2}),
    "AMG, embedding for a gradient": (looking("descriptor"), {"at": 2, "graphs": True, "backwards": True}),
}
HOSTS_OWN = (
    "deferral as a patch",
    "AMG, sampling",
    "AMG, with captions",
)  # the model itself fails in the host's own node
HANDS_NAN_OUT, LOOKS = ("AMG", "deferred, after"), ("AMG, decoding to look", "AMG, decoding pixels, through the model")
VANILLA = {"lab": graphs.lab(2), "v": graphs.ksampler(**MODEL, steps=2)}


@pytest.fixture(scope="module")
def everything(host: Host, vae: Any, clip_vision: Any) -> dict[str, Any]:
    noise = torch.randn(1, *exact.SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        images = vae.decode(torch.cat([exact.x_mem(), noise]))
    given = {"i": images, "vae": vae, "descriptor": clip_vision}
    made = host.run({"latent set": LATENTS, "descriptor set": EMBEDDINGS}, given)
    sets = {name: out[0] for name, out in made.items()} | {"nL2 set": pixel_set(host, vae)}
    works = {"samples": exact.x_mem().repeat(2, 1, 1, 1)}
    return {**given, **sets, "m": exact.build(), "works": works, "clip": exact.TextEncoder()}


@pytest.fixture(scope="module")
def untroubled() -> dict[str, Any]:
    return {}


def network_of(phase: str, vae: Any, clip_vision: Any) -> torch.nn.Module | None:
    if "embedding" in phase:
        return clip_vision.model
    if "decoding" in phase:
        return vae.first_stage_model.taesd_decoder
    return vae.first_stage_model.taesd_encoder if phase.startswith(("references", "copy check")) else None


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("phase", PHASES)
def test_the_host_is_as_it_was(host: Host, everything, untroubled, phase: str, accident: str) -> None:
    model, vae, clip_vision = (everything[name] for name in ("m", "vae", "descriptor"))
    network, (nodes, where) = network_of(phase, vae, clip_vision), PHASES[phase]
    prompt = {"lab": graphs.lab(2), **nodes}
    given = {k: v for k, v in everything.items() if f"'{k}', 0" in str(prompt)}
    if str(prompt) not in untroubled:
        untroubled[str(prompt)] = host.run(prompt, given)["n"]
        untroubled["vanilla"] = samples(host.run(VANILLA, {"m": model})["v"])
    patchers = [model, *((vae.patcher, clip_vision.patcher) if network else ())]
    held, trouble = [slots(patcher.model) for patcher in patchers], Trouble(accident, **where)
    with trouble.inside(network) if network else nullcontext():
        out = survived(host, prompt, given if network else {**given, "m": hooked(model, trouble)}, accident, phase)
    if out is not None and accident != "nan":
        same(out, untroubled[str(prompt)])
    hands_out = phase.startswith(HANDS_NAN_OUT) and phase not in LOOKS
    assert out is None or accident != "nan" or hands_out, "only KSampler itself hands NaN out"
    assert trouble.happened
    if accident in ("exception", "interrupt") or (accident == "out of memory" and phase in HOSTS_OWN):
        assert trouble.calls <= where["at"] + 1, "it stopped at once"
    assert [slots(patcher.model) for patcher in patchers] == held
    assert not [left for patcher in patchers for left in left_behind(patcher)]
    assert torch.equal(samples(host.run(VANILLA, {"m": model})["v"]), untroubled["vanilla"]), (
        "the next image is vanilla"
    )


def survived(host: Host, prompt: Prompt, given: dict[str, Any], accident: str, phase: str) -> list[Any] | None:
    """What the node gives in spite of the accident; None after an error."""
    try:
        out = host.run(prompt, given)["n"]
    except NodeError as error:
        assert accident != "unload" and error.node_id == "n", error
        check_error(error, accident, phase)
        return None
    assert accident in ("nan", "unload"), "it was noticed"
    return out


def check_error(error: NodeError, accident: str, phase: str) -> None:
    if accident == "interrupt":
        assert error.kind == "interrupted"
    elif accident == "exception":
        assert "another pack's hook" in error.message
    elif accident == "nan":
        assert error.kind.endswith("GuardError") and "NaN" in error.message
    else:
        own = "torch.OutOfMemoryError" if phase in HOSTS_OWN else "adapter.memory.OutOfMemoryError"
        assert error.kind.endswith(own) and "you ran out of memory on your GPU" in error.message


def same(out: list[Any], wanted: list[Any]) -> None:
    for mine, theirs in zip(out, wanted, strict=True):
        if isinstance(mine, dict):
            assert torch.equal(mine["samples"], theirs["samples"])
        elif hasattr(mine, "generate_noise"):
            assert torch.equal(mine.noise, theirs.noise)
        elif isinstance(mine, int | float | str):
            assert mine == theirs
