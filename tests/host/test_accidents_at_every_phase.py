"""Every accident at every phase of every node that asks a model: afterwards the host is as it was."""

from typing import Any

import comfy.model_management
import pytest
import torch

from support import graphs
from support.accidents import Trouble, hooked, left_behind, slots
from support.executor import Host, NodeError, Prompt
from support.lab_pack import exact
from support.outcomes import pixel_set, samples

ACCIDENTS = ["none", "out of memory", "interrupt", "exception", "nan", "unload"]
MODEL, GUIDED = {"model": ["m", 0]}, {"model": ["g", 0]}
STEPS = {"steps": 12}
DESCENT = {"n": graphs.optimizer(**MODEL, max_iterations=6, learning_rate=0.05)}
SAMPLER = {"n": graphs.ksampler(**GUIDED, **STEPS)}
AMG = {"refs": graphs.references(), "g": graphs.amg(**MODEL)}
THROUGH = {"refs": graphs.references(), "g": graphs.amg(**MODEL, gradient="through model", threshold_min=0.1)}
CAPTIONS = {"refs": graphs.references("ordinary"), "g": graphs.amg(**MODEL, deduplication=5.0, clip=["clip", 0])}
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
    "AMG, sampling": (AMG | SAMPLER, {"at": 5}),
    "AMG, with captions": (CAPTIONS | SAMPLER, {"at": 5}),
    "AMG, gradient through the model": (THROUGH | SAMPLER, {"at": 2, "graphs": True}),
    "AMG, on the way back": (THROUGH | SAMPLER, {"at": 1, "graphs": True, "backwards": True}),
    "AMG under deferral": ({**AMG, "n": graphs.deferred(**GUIDED, **STEPS)}, {"at": 6}),
}
HOSTS_OWN = ("AMG, sampling", "AMG, with captions")  # the model itself fails in the host's own node
HANDS_NAN_OUT = ("AMG", "deferred, after")
GIVEN = {"works": {"samples": exact.x_mem().repeat(2, 1, 1, 1)}, "clip": exact.TextEncoder()}
VANILLA = {"lab": graphs.lab(2), "v": graphs.ksampler(**MODEL, steps=2)}
LATENTS, EMBEDDINGS = graphs.from_images("latent"), graphs.from_images("descriptor")
CHECK = graphs.check("s", vae=["vae", 0])


@pytest.fixture(scope="module")
def before(host: Host) -> tuple[Any, dict, torch.Tensor]:
    """One model for all accidents, its weights, and its vanilla image."""
    model = exact.build()
    held = slots(model.model)
    return model, held, samples(host.run(VANILLA, {"m": model})["v"])


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("phase", PHASES)
def test_the_host_is_as_it_was(host: Host, before, phase: str, accident: str) -> None:
    model, held, image = before
    nodes, where = PHASES[phase]
    prompt = {"lab": graphs.lab(2), **nodes}
    given = {k: v for k, v in GIVEN.items() if k in str(prompt)}
    trouble = Trouble(accident, **where)
    out = survived(host, prompt, {**given, "m": hooked(model, trouble)}, accident, phase)
    if out is not None and accident != "nan":
        same(out, host.run(prompt, {**given, "m": model})["n"])
    assert out is None or accident != "nan" or phase.startswith(HANDS_NAN_OUT), "KSampler itself hands NaN out"
    assert trouble.happened
    if accident in ("exception", "interrupt"):
        assert trouble.calls <= where["at"] + 1, "it stopped at once"
    assert slots(model.model) == held
    assert not left_behind(model)
    assert torch.equal(samples(host.run(VANILLA, {"m": model})["v"]), image), "the next image is vanilla"


def survived(host: Host, prompt: Prompt, given: dict[str, Any], accident: str, phase: str) -> list[Any] | None:
    """What the node gives in spite of the accident; None after an error."""
    try:
        out = host.run(prompt, given)["n"]
    except NodeError as error:
        assert accident not in ("none", "unload") and error.node_id == "n", error
        check_error(error, accident, phase)
        return None
    assert accident in ("none", "nan", "unload"), "it was noticed"
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
    """The outputs of a node: latents, noises, numbers and texts, bit by bit."""
    for mine, theirs in zip(out, wanted, strict=True):
        if isinstance(mine, dict):
            assert torch.equal(mine["samples"], theirs["samples"])
        elif hasattr(mine, "generate_noise"):
            assert torch.equal(mine.noise, theirs.noise)
        elif isinstance(mine, int | float | str):
            assert mine == theirs


def looking(**changed: Any) -> Prompt:
    guide = graphs.amg(**MODEL, references=["s", 0], vae=["vae", 0], threshold_min=0.0, **changed)
    return {"g": guide, "n": graphs.ksampler(**GUIDED, steps=2)}


NETWORKS: dict[str, tuple[str, Prompt, dict[str, Any]]] = {  # the set, prompt, and where in the decoder or encoder
    "references, of latents": ("latent", {"n": LATENTS}, {"at": 2}),
    "references, of embeddings": ("descriptor", {"n": EMBEDDINGS}, {"at": 2}),
    "copy check, of latents": ("latent", {"n": CHECK}, {"at": 2}),
    "copy check, of embeddings": ("descriptor", {"n": CHECK}, {"at": 2}),
    "AMG, decoding to look": ("descriptor", looking(), {"at": 2}),
    "AMG, decoding for a gradient": ("descriptor", looking(), {"at": 1, "graphs": True}),
    "AMG, decoding pixels, through the model": ("nL2", looking(gradient="through model"), {"at": 2}),
    "AMG, embedding for a gradient": ("descriptor", looking(), {"at": 2, "graphs": True, "backwards": True}),
}


@pytest.fixture(scope="module")
def sets(host: Host, vae: Any, clip_vision: Any) -> dict[str, Any]:
    """The images of the memorized latent and of another one, as references of either metric."""
    given = given_networks(vae, clip_vision)
    made = {"latent": LATENTS, "descriptor": EMBEDDINGS}
    return {k: host.run({"r": n}, given)["r"][0] for k, n in made.items()} | {"nL2": pixel_set(host, vae)}


@pytest.fixture(scope="module")
def untroubled() -> dict[str, Any]:
    return {}


def given_networks(vae: Any, clip_vision: Any) -> dict[str, Any]:
    noise = torch.randn(1, *exact.SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        images = vae.decode(torch.cat([exact.x_mem(), noise]))
    return {"i": images, "vae": vae, "descriptor": clip_vision}


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("phase", NETWORKS)
def test_the_networks_are_as_they_were(host: Host, before, vae, clip_vision, sets, untroubled, phase, accident) -> None:
    model, held, image = before
    metric, nodes, where = NETWORKS[phase]
    given = {**given_networks(vae, clip_vision), "m": model, "s": sets[metric]}
    prompt = {"lab": graphs.lab(2), **nodes} if "g" in nodes else nodes
    given = {k: v for k, v in given.items() if f"'{k}', 0" in str(prompt)}
    kept = slots(vae.first_stage_model), slots(clip_vision.model)
    network = clip_vision.model if "embedding" in phase else vae.first_stage_model.taesd_encoder
    network = vae.first_stage_model.taesd_decoder if "decoding" in phase else network
    trouble = Trouble(accident, **where)
    with trouble.inside(network):
        out = survived(host, prompt, given, accident, phase)
    if out is not None and accident != "nan":
        key = metric + str(prompt)
        if key not in untroubled:
            untroubled[key] = host.run(prompt, given)["n"]
        same(out, untroubled[key])
    assert out is None or accident != "nan" or "gradient" in phase, "an image without a result is not passed over"
    assert trouble.happened
    assert (slots(vae.first_stage_model), slots(clip_vision.model), slots(model.model)) == (*kept, held)
    assert not [*left_behind(model), *left_behind(vae.patcher), *left_behind(clip_vision.patcher)]
    assert torch.equal(samples(host.run(VANILLA, {"m": model})["v"]), image), "the next image is vanilla"


@pytest.mark.parametrize("phase", ["optimizer, first gradient", "detector, in the curve", "AMG, sampling"])
def test_everything_unloaded_between_two_runs(host: Host, before, phase: str) -> None:
    prompt = {"lab": graphs.lab(2), **PHASES[phase][0]}
    given = {**{k: v for k, v in GIVEN.items() if k in str(prompt)}, "m": before[0]}
    first = host.run(prompt, given)["n"]
    comfy.model_management.unload_all_models()
    same(host.run(prompt, given)["n"], first)
