"""Out of memory: done again with less and the same result, or told as the host's own, with what to lower."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import torch
from safetensors.torch import load_file

from host import lab_prompts
from host.accidents import Small, Trouble, hooked, left_behind, network_too_small, out_of_memory, slots
from host.copy_detectors import random_clip_vision
from host.executor import Host, NodeError
from host.prompts import ORDINARY, amg, deferred, detector, ksampler, lab, optimizer, references
from lab.export import FILE
from lab.pack import exact

BATCH, MODEL = 5, {"model": ["m", 0]}
GUIDED = {"model": ["g", 0]}
OWN = {"positive": ["p", 0]}  # a prompt of its own for every picture
PROMPTS = [exact.conditioning(name)[0][0] for name in ("ordinary", "memorized", "null", "memorized", "memorized")]
EACH = {"p": [[torch.cat(PROMPTS), {}]]}
PLANS = {
    "per-sample": {"max_iterations": 4, "learning_rate": 0.05},
    "only measured": {"max_iterations": 0},
    "batch-wise": {},
    "search": {"candidates": 4},
}


def find(host: Host, hook: Small | None, method: str) -> tuple[torch.Tensor, Any]:
    """The optimizer's noise and report, on a model with the hook."""
    model = exact.build()
    given = {**EACH, "m": model if hook is None else hooked(model, hook)}
    kind = "per-sample" if method == "only measured" else method
    noise, report, _ = host.run({"lab": lab(BATCH), "o": optimizer(kind, **MODEL, **OWN, **PLANS[method])}, given)["o"]
    assert not left_behind(model)
    return noise.noise, report


@pytest.mark.parametrize("method", PLANS)
@pytest.mark.parametrize("rows", [4, 2, 1])
def test_an_optimizer_that_runs_out_of_memory_goes_on_with_less(host: Host, method: str, rows: int) -> None:
    if method == "per-sample" and rows == 1:
        pytest.skip("a graph goes through both predictions of a picture")
    noise, report = find(host, None, method)
    small = Small(rows)
    again, same = find(host, small, method)
    torch.testing.assert_close(again, noise, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same.after, report.after, atol=1e-4, rtol=1e-5)
    assert torch.equal(same.iterations, report.iterations)
    assert small.most == rows, "no smaller than it has to be"
    assert 1 <= small.failed <= 4, "what fits is remembered"


def test_one_row_of_the_batch_is_what_it_is_alone_however_it_was_split(host: Host) -> None:
    together, _ = find(host, Small(6), "per-sample")
    finer, _ = find(host, Small(2), "per-sample")
    torch.testing.assert_close(together, finer, atol=1e-5, rtol=1e-5)


class NeedsCheckpoints:
    """A device on which a graph fits with all blocks computed again only; the first `free` graphs fit anyway."""

    def __init__(self, model: Any, free: int = 0) -> None:
        self.network, self.free = model.model, free
        self.seen: list[tuple[int, bool]] = []  # rows of every graph, and whether there were checkpoints

    def __deepcopy__(self, memo: dict) -> NeedsCheckpoints:
        return self

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        if torch.is_grad_enabled():
            thrifty = any("forward" in m.__dict__ for m in self.network.modules())
            self.seen.append((len(args["input"]), thrifty))
            if not thrifty and len(self.seen) > self.free:
                out_of_memory()
        return apply_model(args["input"], args["timestep"], **args["c"])


def test_a_second_attempt_computes_blocks_again_and_begins_its_curve_again(
    host: Host, checkpoint: dict[str, Any], monkeypatch
) -> None:
    live = host.module("memorization_guard", "nodes.host.live")
    monkeypatch.setattr(live, "PAUSE", 0.0)
    monkeypatch.setattr(live, "RARE", 0)
    model = checkpoint["m"]
    before, small = slots(model.model), NeedsCheckpoints(model, free=1)
    plan = {"max_iterations": 2, "learning_rate": 0.03}
    prompt = {**lab_prompts.base(), "o": lab_prompts.optimizer(**plan)}
    noise, report, _ = host.run(prompt, checkpoint)["o"]
    again, same, _ = host.run(prompt, {**checkpoint, "m": hooked(model, small)})["o"]
    assert small.seen == [(4, False), (4, False), (2, False), (4, True), (4, True), (4, True)]
    assert [view["steps"] for view in host.views("o")] == [1, 1, 2, 3, 3]
    torch.testing.assert_close(again.noise, noise.noise, atol=1e-4, rtol=1e-4)
    assert torch.equal(same.iterations, report.iterations)
    assert slots(model.model) == before and not left_behind(model)


def test_a_gradient_through_the_model_remembers_that_it_needs_checkpoints(
    host: Host, checkpoint: dict[str, Any]
) -> None:
    model = checkpoint["m"]
    links = {"model": ["m", 0], "steps": 4}
    plain = host.run({**lab_prompts.base(), "k": lab_prompts.ksampler(**links)}, checkpoint)["k"][0]
    guide = amg(**MODEL, gradient="through model", threshold_min=0.1)
    prompt = {**lab_prompts.base(), "refs": references(), "g": guide, "k": lab_prompts.ksampler(**{**links, **GUIDED})}
    given = {**checkpoint, "works": {"samples": plain["samples"].clone()}}
    whole = host.run(prompt, given)["k"][0]["samples"]
    small = NeedsCheckpoints(model)
    parts = host.run(prompt, {**given, "m": hooked(model, small)})["k"][0]["samples"]
    assert small.seen[:3] == [(4, False), (2, False), (4, True)]
    assert len(small.seen) > 3 and all(thrifty for _, thrifty in small.seen[2:])
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    assert not torch.equal(whole, plain["samples"]) and not left_behind(model)


@pytest.mark.parametrize("rows", [4, 1])
def test_a_detector_that_runs_out_of_memory_measures_the_same_curve(host: Host, rows: int) -> None:
    prompt, model = {"lab": lab(BATCH), "d": detector(**MODEL, **OWN, steps=20)}, exact.build()
    whole = host.run(prompt, {**EACH, "m": model})["d"]
    small = Small(rows)
    parts = host.run(prompt, {**EACH, "m": hooked(model, small)})["d"]
    torch.testing.assert_close(parts[3].d, whole[3].d, atol=1e-4, rtol=1e-4, equal_nan=True)
    assert parts[:3] == whole[:3] and small.failed <= 4 and not left_behind(model)


def test_calibration_that_runs_out_of_memory_measures_the_same(host: Host) -> None:
    own = {"clip": ["clip", 0], "latent_image": ["lab", 4], "prompts": "ordinary\nmemorized", "noise_seed": 7}
    prompt = {"lab": lab(BATCH), "c": {"class_type": "MG_Calibrate", "inputs": {**MODEL, **own}}}
    given, model = {"clip": exact.TextEncoder()}, exact.build()
    whole = host.run(prompt, {**given, "m": model})["c"]
    parts = host.run(prompt, {**given, "m": hooked(model, Small(2))})["c"]
    assert parts[:3] == pytest.approx(whole[:3], rel=1e-4) and parts[3] == whole[3]


def test_a_third_prediction_is_asked_apart_where_two_fit(host: Host) -> None:
    """With a null of its own a batch of pictures inside and outside needs three; KSampler needs two."""
    sampler = deferred(**MODEL, null=["lab", 3], negative=ORDINARY, steps=20)
    prompt, model = {"lab": lab(BATCH), "k": sampler}, exact.build()
    whole = host.run(prompt, {"m": model})["k"]
    assert len(set(whole[1].transition.tolist())) > 1, "there are steps with some inside and some outside"
    small = Small(2 * BATCH)
    parts = host.run(prompt, {"m": hooked(model, small)})["k"]
    torch.testing.assert_close(parts[0]["samples"], whole[0]["samples"], atol=1e-3, rtol=1e-3)
    assert 1 <= small.failed <= 3 and torch.equal(parts[1].transition, whole[1].transition)


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.inference_mode():
        return comfy.sd.load_state_dict_guess_config(load_file(FILE), output_clip=False)[2]


def guided(batch: int, steps: int = 6, captions: str = "", **changed: Any) -> dict[str, Any]:
    nodes = {"g": amg(**{**MODEL, **changed}), "k": ksampler(**GUIDED, steps=steps)}
    return {"lab": lab(batch), "refs": references(captions), **nodes}


WORKS = {"works": {"samples": exact.x_mem().repeat(2, 1, 1, 1)}}


def test_a_gradient_through_the_model_goes_on_with_less(host: Host) -> None:
    prompt, model = guided(BATCH, gradient="through model", threshold_min=0.1), exact.build()
    prompt["k"]["inputs"] |= OWN
    plain = {"lab": lab(BATCH), "k": ksampler(**MODEL, **OWN, steps=6)}
    plain = host.run(plain, {**EACH, "m": model})["k"][0]["samples"]
    whole = host.run(prompt, {**WORKS, **EACH, "m": model})["k"][0]["samples"]
    small = Small(4, graphs=True)
    parts = host.run(prompt, {**WORKS, **EACH, "m": hooked(model, small)})["k"][0]["samples"]
    assert not torch.equal(plain, whole) and 1 <= small.failed <= 2, "it was steered, and it learnt what fits"
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    assert not left_behind(model)


def test_where_a_patch_keeps_something_of_each_picture_the_batch_is_not_split(host: Host) -> None:
    """Halved, a running mean of another pack would get a wrong shape, or wrong values."""
    shapes, model = set(), exact.build()

    def mean(args: dict[str, Any]) -> torch.Tensor:
        shapes.add(len(args["denoised"]))
        return args["denoised"]

    patched = hooked(model, Small(4, graphs=True))
    patched.set_model_sampler_post_cfg_function(mean)
    with pytest.raises(NodeError, match="AMG Guidance: out of memory"):
        host.run(guided(BATCH, gradient="through model"), {**WORKS, "m": patched})
    assert shapes == {BATCH} and not left_behind(model)


def test_captions_that_do_not_fit_beside_the_prompts_are_asked_alone(host: Host) -> None:
    given = {**WORKS, "clip": exact.TextEncoder()}
    how = {"deduplication": 5.0, "despecification": 2.0, "dissimilarity": 0.0, "clip": ["clip", 0]}
    prompt, model = guided(BATCH, 8, "ordinary", **how), exact.build()
    small, large = Small(2 * BATCH), Small(10**6)
    whole = host.run(prompt, {**given, "m": hooked(model, large)})["k"][0]["samples"]
    parts = host.run(prompt, {**given, "m": hooked(model, small)})["k"][0]["samples"]
    assert large.most == 3 * BATCH and small.failed == 1
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def pixel_set(host: Host, vae: Any) -> Any:
    """nL2 references: the memorized latent's picture and nine others."""
    sets = host.module("memorization_guard", "mitigation.references")
    maths = host.module("memorization_guard", "mitigation.similarity")
    noise = torch.randn(9, *exact.SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        near = vae.decode(torch.cat([exact.x_mem(), exact.x_mem() + noise])).movedim(-1, 1)
    blank = ("",) * 10
    return sets.ReferenceSet("nL2", maths.picture_features(near).half(), (3, 64, 64), blank, blank, k=8)


def test_decoding_goes_on_with_fewer_pictures_and_at_last_says_what_to_lower(host: Host, vae: Any) -> None:
    model = exact.build()
    given = {"m": model, "s": pixel_set(host, vae), "vae": vae}
    node = amg(**MODEL, references=["s", 0], vae=["vae", 0], threshold_min=0.0)
    prompt = {"lab": lab(3), "g": node, "k": ksampler(**GUIDED, steps=1)}
    with network_too_small(vae.first_stage_model.taesd_decoder, 3) as rows:
        whole = host.run(prompt, given)["k"][0]["samples"]
    assert max(rows) == 3 and min(rows) == 1, "a batch to look at, one by one for a gradient"
    with network_too_small(vae.first_stage_model.taesd_decoder, 2) as rows:
        parts = host.run(prompt, given)["k"][0]["samples"]
    assert rows.count(3) == 1
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    with network_too_small(vae.first_stage_model.taesd_decoder, 0), pytest.raises(NodeError) as caught:
        host.run(prompt, given)
    told(caught.value, "AMG Guidance", "a TAESD as `vae`", "metric latent")
    assert not left_behind(model)


def test_references_that_do_not_fit_on_the_device_are_compared_on_the_cpu(host: Host, monkeypatch) -> None:
    store = host.module("memorization_guard", "mitigation.nearest").ExactStore
    best, failed = store._best, []

    def full(self: Any, queries: torch.Tensor, k: int) -> Any:
        if not failed:
            failed.append(self)
            out_of_memory()
        assert self is not failed[0], "the store of the device is not asked again"
        return best(self, queries, k)

    given = {**WORKS, "m": exact.build()}
    whole = host.run(guided(2), given)["k"][0]["samples"]
    monkeypatch.setattr(store, "_best", full)
    assert torch.equal(host.run(guided(2), given)["k"][0]["samples"], whole) and failed


def told(error: NodeError, *says: str) -> None:
    """The host took it for out of memory, which unloads all models, and it says whose fault it is and what to lower."""
    assert error.kind.endswith("OutOfMemoryError"), error
    assert "This error means you ran out of memory on your GPU" in error.message, "the host's own tip"
    assert "Tried to allocate 2.00 GiB" in error.message
    for words in ("out of memory", *says):
        assert words in error.message
    loaded = [held.model for held in comfy.model_management.current_loaded_models]
    assert not any(model is not None for model in loaded), "None: a clone that is gone, which the host forgets later"


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (optimizer(**MODEL), ["Noise Optimizer", "`latent_image`", "batch-wise or search"]),
        (optimizer(**MODEL, checkpointing="off"), ["Noise Optimizer", "`checkpointing` to full or auto"]),
        (optimizer("search", **MODEL), ["Noise Optimizer", "a smaller batch or picture on `latent_image`"]),
        (optimizer("batch-wise", **MODEL), ["Noise Optimizer", "a smaller batch or picture on `latent_image`"]),
        (detector(**MODEL), ["Basin-Escape Detector", "smaller batch"]),
        (deferred(**MODEL), ["Deferred-CFG KSampler", "smaller batch"]),
    ],
)  # fmt: skip
def test_where_nothing_is_left_to_split_it_says_what_to_lower(host: Host, node: dict, says: list[str]) -> None:
    model = exact.build()
    with pytest.raises(NodeError) as caught:
        host.run({"lab": lab(2), "n": node}, {"m": hooked(model, Trouble("out of memory", 3))})
    told(caught.value, *says)
    assert not left_behind(model)


def test_what_the_failed_attempts_had_made_is_gone_when_the_host_makes_room(host: Host, monkeypatch) -> None:
    """The error that an artist sees must not keep the tensors of the frames that it comes from."""
    small, unload, kept = Small(0), comfy.model_management.unload_all_models, []

    def watched() -> None:
        kept.append(sum(made() is not None for made in small.held))
        unload()

    monkeypatch.setattr(comfy.model_management, "unload_all_models", watched)
    with pytest.raises(NodeError, match="Noise Optimizer: out of memory"):
        host.run({"lab": lab(2), "o": optimizer(**MODEL)}, {"m": hooked(exact.build(), small)})
    assert kept == [0] and small.failed == 2


@pytest.mark.parametrize("patch", ["MG_DeferredCFG", "MG_AMGGuidance"])
def test_the_plain_model_under_a_patch_fails_as_it_does_without(host: Host, patch: str) -> None:
    """No second attempt in the host's own loop: its sampler's error, in the host's own words."""
    plan = {"mode": "dynamic", "pre_escape_cfg": 0.0, "start_percent": 0.5, "rule": "sharp drop"}
    plan |= {"drop_ratio": 0.5, "memorized_threshold": 0.02}
    node = {"class_type": patch, "inputs": {**MODEL, **plan}} if patch == "MG_DeferredCFG" else amg(**MODEL)
    trouble = Trouble("out of memory", 2)
    prompt = {"lab": lab(2), "refs": references(), "g": node, "k": ksampler(**GUIDED)}
    if patch == "MG_DeferredCFG":
        del prompt["refs"]
    with pytest.raises(NodeError) as caught:
        host.run(prompt, {**(WORKS if "refs" in prompt else {}), "m": hooked(exact.build(), trouble)})
    assert caught.value.node_id == "k" and caught.value.kind == "torch.OutOfMemoryError" and trouble.calls == 2


def test_references_and_copy_check_say_what_to_lower(host: Host, tmp_path, vae: Any) -> None:
    clip = random_clip_vision(tmp_path)
    pictures = {"images": ["i", 0], "captions": ""}
    made = {
        metric: {"class_type": "MG_ReferencesFromImages", "inputs": {**pictures, "metric": metric, **link}}
        for metric, link in (("latent", {"vae": ["vae", 0]}), ("descriptor", {"descriptor": ["clip", 0]}))
    }
    given = {"i": torch.rand(2, 64, 64, 3, generator=torch.manual_seed(0)), "vae": vae, "clip": clip}
    own = {"images": ["i", 0], "references": ["s", 0], "vae": ["vae", 0]}
    check = {"threshold": 0.5, "latent_threshold": 0.85, "nl2_threshold": 1.4, **own}
    for metric, network in (("latent", vae.first_stage_model.taesd_encoder), ("descriptor", clip.model)):
        ready = host.run({"r": made[metric]}, given)["r"][0]
        with network_too_small(network, 0):
            with pytest.raises(NodeError) as caught:
                host.run({"r": made[metric]}, given)
            told(caught.value, "References from Images", "`descriptor`" if metric == "descriptor" else "--cpu-vae")
            with pytest.raises(NodeError) as caught:
                host.run({"c": {"class_type": "MG_CopyCheck", "inputs": check}}, {**given, "s": ready})
            told(caught.value, "Copy Check")


def test_a_picture_too_large_for_the_device_is_shrunk_on_the_cpu(host: Host, tmp_path, monkeypatch) -> None:
    sscd = host.module("memorization_guard", "mitigation.sscd")
    prepare, failed = sscd.prepare, []

    def full(pictures: torch.Tensor, *args: Any) -> torch.Tensor:
        if not failed:
            failed.append(pictures.shape)
            out_of_memory()
        return prepare(pictures, *args)

    inputs = {"images": ["i", 0], "captions": "", "metric": "descriptor", "descriptor": ["clip", 0]}
    prompt = {"r": {"class_type": "MG_ReferencesFromImages", "inputs": inputs}}
    given = {"i": torch.rand(2, 64, 64, 3, generator=torch.manual_seed(0)), "clip": random_clip_vision(tmp_path)}
    whole = host.run(prompt, given)["r"][0].features
    monkeypatch.setattr(sscd, "prepare", full)
    assert torch.equal(host.run(prompt, given)["r"][0].features, whole) and failed
