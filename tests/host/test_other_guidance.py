"""Deferred CFG beside other guiders, other packs' guidance in a batch that switches separately, null, inpainting."""

from typing import Any

import comfy.samplers
import pytest
import torch

from support.executor import Host
from support.graphs import checkpoint as on_lab
from support.graphs import node, references
from support.graphs.features import NEEDS_EASY_CACHE, PATCHES, Feature, encoded
from support.outcomes import same_bits, samples

TELLS_APART = {"memorized_threshold": 0.019, "start_percent": 0.5}  # the first sample is inside, the second is not
AMG = on_lab.amg(despecification=5.0, dissimilarity=10.0, threshold_min=-1.0, threshold_max=-1.0)
# These keep what they saw of a batch: the attention of the last call, the last prediction, the first judgement.
REMEMBERING = {
    "SAG": Feature(
        {"p": node("SelfAttentionGuidance", model=["m", 0], scale=0.5, blur_sigma=2.0)}, {"model": ["p", 0]}
    ),
    "cfg_pp": Feature({}, {"sampler_name": "euler_cfg_pp"}),
    "AMG": Feature({"refs": references(), "g": AMG}, {"model": ["g", 0]}),
    "AMG on a deferral": Feature(
        {"refs": references(), "g": {**AMG, "inputs": {**AMG["inputs"], "model": ["patch", 0]}}}, {"model": ["g", 0]}
    ),
}
SEPARATELY = [("nothing", 0.0), ("nothing", 1.0), ("nothing", -2.0), ("RescaleCFG", -2.0), ("perturbed attention", 1.0)]
SEPARATELY += [("SAG", 0.0), ("SAG", 1.0), ("cfg_pp", 1.0), ("cfg_pp", -2.0), ("AMG", 0.0), ("AMG on a deferral", -2.0)]


@pytest.mark.parametrize("style", ["regular", "nested", "basic"])
def test_other_guiders_are_left_alone(host: Host, checkpoint, style: str) -> None:
    def guider(model: list) -> dict[str, Any]:
        if style == "basic":
            return node("BasicGuider", model=model, conditioning=["mem", 0])
        links = {"model": model, "cond1": ["mem", 0], "cond2": ["ord", 0], "negative": ["null", 0]}
        return node("DualCFGGuider", **links, cfg_conds=5.0, cfg_cond2_negative=3.0, style=style)

    patch = on_lab.patch("static", start_percent=1.0)
    outs = [
        host.run(Feature().prompt(patch=patch, guider=guider(model), **on_lab.custom(["guider", 0])), checkpoint)
        for model in (["m", 0], ["patch", 0])
    ]
    assert same_bits(outs[0]["custom"], outs[1]["custom"])
    shown = b"".join(bytes(data) for _, data in host.events if isinstance(data, bytes | bytearray))
    assert b"uided from step" not in shown, "nothing is said where nothing was done"


def test_a_deferral_with_null_is_guided_against_the_negative_afterwards(host: Host, checkpoint) -> None:
    links = {**on_lab.LINKS, "negative": ["neg", 0]}
    prompt = Feature({"neg": on_lab.text("a green ring")}).prompt(
        free=on_lab.stage(0, on_lab.SWITCH, **{**links, "positive": ["null", 0], "negative": ["null", 0]}),
        vanilla=on_lab.stage(on_lab.SWITCH, on_lab.STEPS, **{**links, "latent_image": ["free", 0]}),
        ours=on_lab.deferred("static", **links, null=["null", 0], start_percent=on_lab.START),
        without=on_lab.deferred("static", **links, start_percent=on_lab.START),
    )
    out = host.run(prompt, checkpoint)
    torch.testing.assert_close(samples(out["ours"]), samples(out["vanilla"]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(samples(out["without"]), samples(out["vanilla"]), atol=1e-2)


@pytest.mark.parametrize(("name", "scale"), SEPARATELY)
def test_samples_that_switch_separately_are_as_they_would_be_alone(host: Host, checkpoint, name, scale: float) -> None:
    feature = (PATCHES | REMEMBERING).get(name, Feature())
    checkpoint = {**checkpoint, "works": {"samples": torch.ones(1, 4, on_lab.SIZE, on_lab.SIZE)}}
    outs = []
    for rows in ([0, 1], [0], [1]):
        prompt = encoded(host, checkpoint, [[on_lab.MEMORIZED, on_lab.ORDINARY][i] for i in rows])
        latent = {"samples": torch.zeros(len(rows), 4, on_lab.SIZE, on_lab.SIZE), "batch_index": rows}
        links = {**feature.inputs(), "positive": ["both", 0], "latent_image": ["some", 0]}
        if name == "AMG on a deferral":
            patch = on_lab.patch(**TELLS_APART, pre_escape_cfg=scale)
            nodes = {"patch": patch, "k": on_lab.ksampler(**links)}
        else:
            nodes = {"k": on_lab.deferred(**links, **TELLS_APART, pre_escape_cfg=scale)}
        given = {**feature.given(checkpoint), "both": prompt, "some": latent}
        outs.append(host.run(feature.prompt(**nodes), given)["k"])
    assert "patch" in nodes or outs[0][1].transition.tolist() == [on_lab.SWITCH, 0]
    alone = torch.cat([samples(outs[1]), samples(outs[2])])
    torch.testing.assert_close(samples(outs[0]), alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["nothing", *PATCHES])
def test_opposite_guidance_is_vanilla_at_a_negative_scale(host: Host, checkpoint, name: str) -> None:
    """No vanilla node takes a negative scale; the host's guider does."""
    feature = PATCHES.get(name, Feature())
    links = feature.inputs()
    given = feature.given(checkpoint)
    prompts = host.run(feature.prompt(), given)
    model = host.run(feature.prompt(p=feature.nodes["p"]), given)["p"][0] if feature.nodes else given[links["model"][0]]
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(prompts["mem"][0], prompts["null"][0])
    guider.set_cfg(-2.0)
    prompt = feature.prompt(
        **on_lab.custom(["guider", 0], **links),
        ours=on_lab.deferred("static", **links, start_percent=1.0, pre_escape_cfg=-2.0),
    )
    out = host.run(prompt, {**given, "guider": guider})
    torch.testing.assert_close(samples(out["ours"]), samples(out["custom"]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("scale", "cfg"), [(0.0, 5.0), (1.0, 5.0), (-2.0, 1.0), (0.0, 1.0)])
def test_every_evaluation_is_a_prompt_and_a_negative_prompt(host: Host, checkpoint, monkeypatch, scale, cfg) -> None:
    """Adapters, skip-layer guidance and step caches tell by these two places what they are asked for."""
    seen: list[tuple[bool, ...]] = []
    real = comfy.samplers.calc_cond_batch

    def calc(model: Any, conds: list, *rest: Any) -> list:
        seen.append(tuple(c is not None for c in conds))
        return real(model, conds, *rest)

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", calc)
    both = encoded(host, checkpoint, [on_lab.MEMORIZED, on_lab.ORDINARY])
    links = {**on_lab.LINKS, "positive": ["both", 0], "negative": ["neg", 0], "cfg": cfg}
    captions = "a blue ring\na blue ring"
    prompt = Feature({"neg": on_lab.text("a green ring")}).prompt(
        refs=references(captions=captions),
        g=on_lab.amg(deduplication=13.0, threshold_min=-1.0, threshold_max=-1.0, clip=["clip", 0]),
        k=on_lab.deferred(**{**links, "model": ["g", 0]}, **TELLS_APART, null=["null", 0], pre_escape_cfg=scale),
        o=on_lab.optimizer("batch-wise", adjustments=1),
    )
    host.run(prompt, {**checkpoint, "both": both, "works": {"samples": torch.ones(2, 4, on_lab.SIZE, on_lab.SIZE)}})
    assert {len(call) for call in seen} == {2}
    assert (True, True) in seen


@pytest.mark.parametrize("name", [pytest.param("EasyCache", marks=NEEDS_EASY_CACHE), "LazyCache"])
def test_step_caches_neither_see_nor_answer_our_evaluations(host: Host, checkpoint, name: str) -> None:
    settings = {"reuse_threshold": 1.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
    cached = Feature({"p": node(name, model=["m", 0], **settings)}, {"model": ["p", 0]})
    links, run = cached.inputs(), {"steps": 8}
    given = {**checkpoint, "works": {"samples": torch.ones(1, 4, on_lab.SIZE, on_lab.SIZE)}}
    plan = {"max_iterations": 1, "target_magnitude": 0.0}
    prompt = cached.prompt(
        plain=on_lab.ksampler(**run),
        vanilla=on_lab.ksampler(**links, **run),
        seen=on_lab.detector(**run),
        seen_beside=on_lab.detector(**links, **run),
        noise=on_lab.optimizer(**plan),
        noise_beside=on_lab.optimizer(**links, **plan),
        no_basin=on_lab.deferred(**links, **run, **on_lab.NO_BASIN),
        refs=references(),
        g=node("MG_AMGGuidance", **{**AMG["inputs"], "model": ["p", 0], "gradient": "through model"}),
        guided=on_lab.ksampler(**{**links, "model": ["g", 0]}, **run),
        **{f"scale {g0}": on_lab.deferred(**links, **run, pre_escape_cfg=g0) for g0 in (0.0, 1.0, -2.0)},
        **{f"static {g0}": on_lab.deferred("static", **links, **run, pre_escape_cfg=g0) for g0 in (0.0, 1.0)},
    )
    out = host.run(prompt, given)
    assert not same_bits(out["plain"], out["vanilla"]), "the cache skips steps"
    torch.testing.assert_close(out["seen_beside"][3].d, out["seen"][3].d, rtol=1e-5, atol=0)
    assert torch.equal(out["noise_beside"][0].noise, out["noise"][0].noise)
    assert all(torch.isfinite(samples(out[k])).all() for k in out if k.startswith(("scale", "static", "guided")))
    assert same_bits(out["no_basin"], out["vanilla"])


def test_a_step_cache_is_known_by_its_own_names_and_not_by_a_folder_above_it(host: Host) -> None:
    known = host.module("memorization_guard", "adapter.step_caches").without_step_caches
    for module, kept in {
        "/home/a/.cache/comfy/custom_nodes/adapter.nodes": True,
        "/x/ComfyUI-TeaCache.nodes": False,
    }.items():
        wrapper = type("Wrapper", (), {"__module__": module})()
        assert ("model_function_wrapper" in known({"model_function_wrapper": wrapper})) == kept


def test_patches_draw_the_same_random_numbers_beside_us(host: Host, checkpoint) -> None:
    """From the global state, which KSampler seeds. At CFG 1 the measurement is an evaluation of its own."""
    patched = Feature({"p": node("TomePatchModel", model=["m", 0], ratio=0.3)}, {"model": ["p", 0]})
    links = {**patched.inputs(), "cfg": 1.0}
    prompt = patched.prompt(
        vanilla=on_lab.ksampler(**links),
        ours=on_lab.deferred(**links, **on_lab.NO_BASIN),
        found=on_lab.optimizer("search", candidates=1),
    )
    out = host.run(prompt, checkpoint)
    assert same_bits(out["ours"], out["vanilla"])
    torch.manual_seed(0)  # as another node leaves it
    later = patched.prompt(ours=on_lab.deferred("off", **links, noise=["found", 0]))
    assert same_bits(host.run(later, {**checkpoint, "found": out["found"][0]})["ours"], out["vanilla"])
