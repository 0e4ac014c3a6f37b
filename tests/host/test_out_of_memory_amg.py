"""Out of memory under AMG Guidance and around references: with less, elsewhere, or told with what to lower."""

from typing import Any

import torch

from support import out_of_memory as small_device
from support.accidents import hooked, left_behind
from support.amg_runs import pixel_set
from support.executor import Host
from support.graphs import amg, check, from_images, ksampler, lab, references
from support.graphs import checkpoint as on_lab
from support.lab_pack import exact
from support.out_of_memory import BATCH, GUIDED, MODEL, WORKS, Small, out_of_memory, told
from support.outcomes import fails, samples


def guided(batch: int, steps: int = 6, captions: str = "", **changed: Any) -> dict[str, Any]:
    nodes = {"g": amg(**{**MODEL, **changed}), "k": ksampler(**GUIDED, steps=steps)}
    return {"lab": lab(batch), "refs": references(captions), **nodes}


def test_a_gradient_through_the_model_goes_on_with_less(host: Host) -> None:
    prompt, model = guided(BATCH, gradient="through model", threshold_min=0.1), exact.build()
    prompt["k"]["inputs"] |= small_device.OWN
    plain = {"lab": lab(BATCH), "k": ksampler(**MODEL, **small_device.OWN, steps=6)}
    plain = samples(host.run(plain, {**small_device.EACH, "m": model})["k"])
    whole = samples(host.run(prompt, {**WORKS, **small_device.EACH, "m": model})["k"])
    small = Small(4, graphs=True)
    parts = samples(host.run(prompt, {**WORKS, **small_device.EACH, "m": hooked(model, small)})["k"])
    assert not torch.equal(plain, whole) and 1 <= small.failed <= 2, "it was steered, and it learnt what fits"
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    assert not left_behind(model)


def test_a_gradient_through_the_model_remembers_that_it_needs_checkpoints(
    host: Host, checkpoint: dict[str, Any]
) -> None:
    model = checkpoint["m"]
    links = {"model": ["m", 0], "steps": 4}
    plain = host.run({**on_lab.base(), "k": on_lab.ksampler(**links)}, checkpoint)["k"][0]
    guide = amg(**MODEL, gradient="through model", threshold_min=0.1)
    prompt = {**on_lab.base(), "refs": references(), "g": guide, "k": on_lab.ksampler(**{**links, **GUIDED})}
    given = {**checkpoint, "works": {"samples": plain["samples"].clone()}}
    whole = samples(host.run(prompt, given)["k"])
    small = small_device.NeedsCheckpoints(model)
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
                out_of_memory()
        return apply_model(args["input"], args["timestep"], **args["c"])

    parts = samples(host.run(prompt, {**given, "m": hooked(model, no_room_for_captions)})["k"])
    assert asked[:5] == [BATCH, 3, 2, 2, 1] and max(asked[1:]) == 3
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_decoding_goes_on_with_fewer_images_and_at_last_says_what_to_lower(host: Host, vae: Any) -> None:
    model = exact.build()
    given = {"m": model, "s": pixel_set(host, vae), "vae": vae}
    node = amg(**MODEL, references=["s", 0], vae=["vae", 0], threshold_min=0.0)
    prompt = {"lab": lab(3), "g": node, "k": ksampler(**GUIDED, steps=1)}
    with small_device.network_too_small(vae.first_stage_model.taesd_decoder, 3) as rows:
        whole = samples(host.run(prompt, given)["k"])
    assert max(rows) == 3 and min(rows) == 1, "a batch to look at, one by one for a gradient"
    with small_device.network_too_small(vae.first_stage_model.taesd_decoder, 2) as rows:
        parts = samples(host.run(prompt, given)["k"])
    assert rows.count(3) == 1
    torch.testing.assert_close(parts, whole, atol=1e-3, rtol=1e-3)
    with small_device.network_too_small(vae.first_stage_model.taesd_decoder, 0):
        error = fails(host, prompt, given)
    told(error, "AMG Guidance", "a TAESD as `vae`", "metric latent")
    assert not left_behind(model)


def test_references_that_do_not_fit_on_the_device_are_compared_on_the_cpu(host: Host, monkeypatch) -> None:
    store = host.module("memorization_guard", "mitigation.references.index").ReferenceIndex
    best, failed = store._best, []

    def full(self: Any, queries: torch.Tensor, k: int) -> Any:
        if not failed:
            failed.append(self)
            out_of_memory()
        assert self is not failed[0], "the store of the device is not asked again"
        return best(self, queries, k)

    given = {**WORKS, "m": exact.build()}
    whole = samples(host.run(guided(2), given)["k"])
    monkeypatch.setattr(store, "_best", full)
    assert torch.equal(samples(host.run(guided(2), given)["k"]), whole) and failed


def test_references_and_copy_check_say_what_to_lower(host: Host, vae: Any, clip_vision: Any) -> None:
    given = {"i": torch.rand(2, 64, 64, 3, generator=torch.manual_seed(0)), "vae": vae, "descriptor": clip_vision}
    networks = {"latent": vae.first_stage_model.taesd_encoder, "descriptor": clip_vision.model}
    for metric, network in networks.items():
        prompt = {"r": from_images(metric)}
        ready = host.run(prompt, given)["r"][0]
        with small_device.network_too_small(network, 0):
            says = "`descriptor`" if metric == "descriptor" else "--cpu-vae"
            told(fails(host, prompt, given), "References from Images", says)
            told(fails(host, {"c": check("s", vae=["vae", 0])}, {**given, "s": ready}), "Copy Check")


def test_an_image_too_large_for_the_device_is_shrunk_on_the_cpu(host: Host, clip_vision: Any, monkeypatch) -> None:
    sscd = host.module("memorization_guard", "mitigation.references.sscd")
    prepare, failed = sscd.prepare, []

    def full(images: torch.Tensor, *args: Any) -> torch.Tensor:
        if not failed:
            failed.append(images.shape)
            out_of_memory()
        return prepare(images, *args)

    prompt = {"r": from_images("descriptor")}
    given = {"i": torch.rand(2, 64, 64, 3, generator=torch.manual_seed(0)), "descriptor": clip_vision}
    whole = host.run(prompt, given)["r"][0].features
    monkeypatch.setattr(sscd, "prepare", full)
    assert torch.equal(host.run(prompt, given)["r"][0].features, whole) and failed
