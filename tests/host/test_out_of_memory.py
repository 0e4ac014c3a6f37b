"""Out of memory: done again with less and the same result, or told as the host's own, with what to lower."""

from typing import Any

import comfy.model_management
import pytest
import torch

from support import accidents
from support.accidents import Small, Trouble, hooked, left_behind, told
from support.executor import Host
from support.graphs import (
    ORDINARY,
    amg,
    calibrate,
    check,
    deferred,
    detector,
    from_images,
    ksampler,
    lab,
    optimizer,
    references,
)
from support.graphs import checkpoint as on_lab
from support.lab_pack import exact
from support.outcomes import fails, pixel_set, samples

BATCH, MODEL, GUIDED = 5, {"model": ["m", 0]}, {"model": ["g", 0]}
OWN = {"positive": ["p", 0]}  # a prompt of its own for every image
PROMPTS = [exact.conditioning(name)[0][0] for name in ("ordinary", "memorized", "null", "memorized", "memorized")]
EACH = {"p": [[torch.cat(PROMPTS), {}]]}
WORKS = {"works": {"samples": exact.x_mem().repeat(2, 1, 1, 1)}}
PLANS = {
    "per-sample": {"max_iterations": 4, "learning_rate": 0.05},
    "only measured": {"max_iterations": 0},
    "batch-wise": {},
    "search": {"candidates": 4},
}


def find(host: Host, hook: Small | None, method: str) -> tuple[torch.Tensor, Any]:
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
        pytest.skip("a graph goes through both predictions of an image")
    noise, report = find(host, None, method)
    small = Small(rows)
    again, same = find(host, small, method)
    torch.testing.assert_close(again, noise, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(same.after, report.after, atol=1e-4, rtol=1e-5)
    assert torch.equal(same.iterations, report.iterations)
    assert small.most == rows, "no smaller than it has to be"
    assert 1 <= small.failed <= 4, "what fits is remembered"


def test_a_second_attempt_computes_blocks_again_and_begins_its_curve_again(host: Host, checkpoint, monkeypatch) -> None:
    live = host.module("memorization_guard", "adapter.live_view")
    monkeypatch.setattr(live, "MIN_PAUSE", 0.0)
    monkeypatch.setattr(live, "PAUSE_PER_VIEW", 0)
    model = checkpoint["m"]
    before, small = accidents.slots(model.model), accidents.NeedsCheckpoints(model, free=1)
    plan = {"max_iterations": 2, "learning_rate": 0.03}
    prompt = {**on_lab.base(), "o": on_lab.optimizer(**plan)}
    noise, report, _ = host.run(prompt, checkpoint)["o"]
    again, same, _ = host.run(prompt, {**checkpoint, "m": hooked(model, small)})["o"]
    assert small.seen == [(4, False), (4, False), (2, False), (4, True), (4, True), (4, True)]
    assert [view["steps"] for view in host.views("o")] == [1, 1, 2, 3, 3]
    torch.testing.assert_close(again.noise, noise.noise, atol=1e-4, rtol=1e-4)
    assert torch.equal(same.iterations, report.iterations)
    assert accidents.slots(model.model) == before and not left_behind(model)


@pytest.mark.parametrize("rows", [4, 1])
def test_measuring_that_runs_out_of_memory_gives_the_same(host: Host, rows: int) -> None:
    prompt, model, small = {"lab": lab(BATCH), "d": detector(**MODEL, **OWN, steps=20)}, exact.build(), Small(rows)
    whole, parts = (host.run(prompt, {**EACH, "m": m})["d"] for m in (model, hooked(model, small)))
    torch.testing.assert_close(parts[3].d, whole[3].d, atol=1e-4, rtol=1e-4, equal_nan=True)
    assert parts[:3] == whole[:3] and small.failed <= 4 and not left_behind(model)
    prompt, given = {"lab": lab(BATCH), "c": calibrate("ordinary\nmemorized", **MODEL)}, {"clip": exact.TextEncoder()}
    whole, parts = (host.run(prompt, {**given, "m": m})["c"] for m in (model, hooked(model, Small(2))))
    assert parts[:3] == pytest.approx(whole[:3], rel=1e-4) and parts[3] == whole[3]


def test_a_third_prediction_never_needs_more_memory_than_two(host: Host) -> None:
    """With a null of its own a batch of images inside and outside needs three; KSampler needs two."""
    sampler = deferred(**MODEL, null=["lab", 3], negative=ORDINARY, steps=20)
    prompt, model = {"lab": lab(BATCH), "k": sampler}, exact.build()
    whole = host.run(prompt, {"m": model})["k"]
    assert len(set(whole[1].transition.tolist())) > 1, "there are steps with some inside and some outside"
    small = Small(2 * BATCH)
    parts = host.run(prompt, {"m": hooked(model, small)})["k"]
    torch.testing.assert_close(samples(parts), samples(whole), atol=1e-3, rtol=1e-3)
    assert small.failed == 0 and torch.equal(parts[1].transition, whole[1].transition)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (optimizer(**MODEL), ["Noise Optimizer", "`latent_image`", "batch-wise or search"]),
        (optimizer(**MODEL, checkpointing="off"), ["Noise Optimizer", "`checkpointing` to full or auto"]),
        (optimizer("search", **MODEL), ["Noise Optimizer", "a smaller batch or image on `latent_image`"]),
        (optimizer("batch-wise", **MODEL), ["Noise Optimizer", "a smaller batch or image on `latent_image`"]),
        (detector(**MODEL), ["Basin-Escape Detector", "smaller batch"]),
        (deferred(**MODEL), ["Deferred-CFG KSampler", "smaller batch"]),
    ],
)
def test_where_nothing_is_left_to_split_it_says_what_to_lower(host: Host, node: dict, says: list[str]) -> None:
    model = exact.build()
    told(fails(host, {"lab": lab(2), "n": node}, {"m": hooked(model, Trouble("out of memory", 3))}), *says)
    assert not left_behind(model)


def test_what_the_failed_attempts_had_made_is_gone_when_the_host_makes_room(host: Host, monkeypatch) -> None:
    """The error that an artist sees must not keep the tensors of the frames that it comes from."""
    small, unload, kept = Small(0), comfy.model_management.unload_all_models, []

    def watched() -> None:
        kept.append(sum(made() is not None for made in small.held))
        unload()

    monkeypatch.setattr(comfy.model_management, "unload_all_models", watched)
    error = fails(host, {"lab": lab(2), "o": optimizer(**MODEL)}, {"m": hooked(exact.build(), small)})
    assert "Noise Optimizer: out of memory" in error.message
    assert kept == [0] and small.failed == 2


def guided(batch: int, steps: int = 6, captions: str = "", **changed: Any) -> dict[str, Any]:
    nodes = {"g": amg(**{**MODEL, **changed}), "k": ksampler(**GUIDED, steps=steps)}
    return {"lab": lab(batch), "refs": references(captions), **nodes}


def test_a_gradient_through_the_model_goes_on_with_less(host: Host) -> None:
    prompt, model = guided(BATCH, gradient="through model", threshold_min=0.1), exact.build()
    prompt["k"]["inputs"] |= OWN
    plain = {"lab": lab(BATCH), "k": ksampler(**MODEL, **OWN, steps=6)}
    plain = samples(host.run(plain, {**EACH, "m": model})["k"])
    whole = samples(host.run(prompt, {**WORKS, **EACH, "m": model})["k"])
    small = Small(4, graphs=True)
    parts = samples(host.run(prompt, {**WORKS, **EACH, "m": hooked(model, small)})["k"])
    assert not torch.equal(plain, whole) and 1 <= small.failed <= 2, "it was steered, and it learnt what fits"
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    assert not left_behind(model)


def test_a_gradient_through_the_model_remembers_that_it_needs_checkpoints(host: Host, checkpoint) -> None:
    model = checkpoint["m"]
    links = {"model": ["m", 0], "steps": 4}
    plain = host.run({**on_lab.base(), "k": on_lab.ksampler(**links)}, checkpoint)["k"][0]
    guide = amg(**MODEL, gradient="through model", threshold_min=0.1)
    prompt = {**on_lab.base(), "refs": references(), "g": guide, "k": on_lab.ksampler(**{**links, **GUIDED})}
    given = {**checkpoint, "works": {"samples": plain["samples"].clone()}}
    whole = samples(host.run(prompt, given)["k"])
    small = accidents.NeedsCheckpoints(model)
    parts = samples(host.run(prompt, {**given, "m": hooked(model, small)})["k"])
    assert small.seen[:3] == [(4, False), (2, False), (4, True)]
    assert len(small.seen) > 3 and all(thrifty for _, thrifty in small.seen[2:])
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    assert not torch.equal(whole, plain["samples"]) and not left_behind(model)


def test_where_a_patch_keeps_something_of_each_image_the_batch_is_not_split(host: Host) -> None:
    """Halved, a running mean of another pack would get a wrong shape, or wrong values."""
    shapes, model = set(), exact.build()

    def mean(args: dict[str, Any]) -> torch.Tensor:
        shapes.add(len(args["denoised"]))
        return args["denoised"]

    patched = hooked(model, Small(4, graphs=True))
    patched.set_model_sampler_post_cfg_function(mean)
    error = fails(host, guided(BATCH, gradient="through model"), {**WORKS, "m": patched})
    assert "AMG Guidance: out of memory" in error.message
    assert shapes == {BATCH} and not left_behind(model)


def test_captions_that_do_not_fit_are_asked_in_parts(host: Host) -> None:
    given = {**WORKS, "clip": exact.TextEncoder()}
    how = {"deduplication": 5.0, "despecification": 2.0, "dissimilarity": 0.0, "clip": ["clip", 0]}
    prompt, model = guided(BATCH, 8, "ordinary", **how), exact.build()
    whole = samples(host.run(prompt, {**given, "m": model})["k"])
    asked: list[int] = []

    def no_room_for_captions(apply_model, args):
        if args["cond_or_uncond"] == [0]:  # the sampler asks for two, a caption is asked for alone
            asked.append(len(args["input"]))
            if asked[-1] > 2:
                accidents.out_of_memory()
        return apply_model(args["input"], args["timestep"], **args["c"])

    parts = samples(host.run(prompt, {**given, "m": hooked(model, no_room_for_captions)})["k"])
    assert asked[:5] == [BATCH, 3, 2, 2, 1] and max(asked[1:]) == 3
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_decoding_goes_on_with_fewer_images_and_at_last_says_what_to_lower(host: Host, vae: Any) -> None:
    model = exact.build()
    given = {"m": model, "s": pixel_set(host, vae), "vae": vae}
    node = amg(**MODEL, references=["s", 0], vae=["vae", 0], threshold_min=0.0)
    prompt = {"lab": lab(3), "g": node, "k": ksampler(**GUIDED, steps=1)}
    with accidents.network_too_small(vae.first_stage_model.taesd_decoder, 3) as rows:
        whole = samples(host.run(prompt, given)["k"])
    assert max(rows) == 3 and min(rows) == 1, "a batch to look at, one by one for a gradient"
    with accidents.network_too_small(vae.first_stage_model.taesd_decoder, 2) as rows:
        parts = samples(host.run(prompt, given)["k"])
    assert rows.count(3) == 1
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    with accidents.network_too_small(vae.first_stage_model.taesd_decoder, 0):
        error = fails(host, prompt, given)
    told(error, "AMG Guidance", "a TAESD as `vae`", "metric latent")
    assert not left_behind(model)


@pytest.mark.parametrize("what", ["references", "an image"])
def test_what_does_not_fit_on_the_device_is_done_on_the_cpu(host: Host, clip_vision: Any, monkeypatch, what) -> None:
    """References are compared there, an image is shrunk there."""
    if what == "references":
        owner, name = host.module("memorization_guard", "mitigation.references.index").ReferenceIndex, "_best"
        prompt, given = guided(2), {**WORKS, "m": exact.build()}
    else:
        owner, name = host.module("memorization_guard", "mitigation.references.sscd"), "prepare"
        images = torch.rand(2, 64, 64, 3, generator=torch.manual_seed(0))
        prompt, given = {"k": from_images("descriptor")}, {"i": images, "descriptor": clip_vision}
    real, failed = getattr(owner, name), []

    def full(*args: Any) -> Any:
        if not failed:
            failed.append(args[0])
            accidents.out_of_memory()
        assert what != "references" or args[0] is not failed[0], "the store of the device is not asked again"
        return real(*args)

    def run() -> torch.Tensor:
        out = host.run(prompt, given)["k"][0]
        return out["samples"] if what == "references" else out.features

    whole = run()
    monkeypatch.setattr(owner, name, full)
    assert torch.equal(run(), whole) and failed


def test_references_and_copy_check_say_what_to_lower(host: Host, vae: Any, clip_vision: Any) -> None:
    given = {"i": torch.rand(2, 64, 64, 3, generator=torch.manual_seed(0)), "vae": vae, "descriptor": clip_vision}
    networks = {"latent": vae.first_stage_model.taesd_encoder, "descriptor": clip_vision.model}
    for metric, network in networks.items():
        prompt = {"r": from_images(metric)}
        ready = host.run(prompt, given)["r"][0]
        with accidents.network_too_small(network, 0):
            says = "`descriptor`" if metric == "descriptor" else "--cpu-vae"
            told(fails(host, prompt, given), "References from Images", says)
            told(fails(host, {"c": check("s", vae=["vae", 0])}, {**given, "s": ready}), "Copy Check")
