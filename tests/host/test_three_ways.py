"""One mechanism under three nodes: the sampler, the guider and the model patch give the same bits."""

from __future__ import annotations

import pytest
import torch

from support.executor import Host, NodeError
from support.graphs import MODEL, NULL, ORDINARY, RULE, SEED, deferred, detector, ksampler, lab
from support.lab_pack import exact

PLAN = {"pre_escape_cfg": 0.0, "start_percent": 0.5, **RULE}
PATCHED = ["patch", 0]


def patch(mode: str = "dynamic", **changed) -> dict:
    return {"class_type": "MG_DeferredCFG", "inputs": {"model": MODEL, "mode": mode, **PLAN, **changed}}


def custom(guider: dict, name: str = "euler", denoise: float = 1.0) -> dict:
    """SamplerCustomAdvanced with the noise, sampler and sigmas of `ksampler()`."""
    return {
        "guider": guider,
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": SEED}},
        "sampler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": name}},
        "sigmas": {
            "class_type": "BasicScheduler",
            "inputs": {"model": MODEL, "scheduler": "normal", "steps": 50, "denoise": denoise},
        },
        "c": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["noise", 0],
                "guider": ["guider", 0],
                "sampler": ["sampler", 0],
                "sigmas": ["sigmas", 0],
                "latent_image": ["lab", 4],
            },
        },
    }


def guider(mode: str = "dynamic", **changed) -> dict:
    own = {"model": MODEL, "positive": ["lab", 1], "negative": NULL, "cfg": 7.0, "mode": mode, **PLAN, **changed}
    return {"class_type": "MG_DeferredCFGGuider", "inputs": own}


def advanced(start: int, end: int, latent: list, **changed) -> dict:
    own = {**ksampler()["inputs"], "noise_seed": SEED, "start_at_step": start, "end_at_step": end}
    own |= {"add_noise": "enable" if start == 0 else "disable"}
    own |= {"return_with_leftover_noise": "enable" if end < 50 else "disable", "latent_image": latent, **changed}
    return {"class_type": "KSamplerAdvanced", "inputs": {k: v for k, v in own.items() if k not in ("seed", "denoise")}}


def samples(output: list) -> torch.Tensor:
    return output[0]["samples"]


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize(
    ("mode", "changed"), [("dynamic", {}), ("static", {"start_percent": 0.3}), ("dynamic", {"pre_escape_cfg": -2.0})]
)
def test_they_give_the_same_bits(host: Host, name: str, mode: str, changed: dict) -> None:
    out = host.run(
        {
            "lab": lab(4),
            "a": deferred(mode, sampler_name=name, **changed),
            "patch": patch(mode, **changed),
            "b": ksampler(model=PATCHED, sampler_name=name),
            **custom(guider(mode, **changed), name),
            "plain": ksampler(sampler_name=name),
        }
    )
    assert torch.equal(samples(out["a"]), samples(out["b"]))
    assert torch.equal(samples(out["a"]), samples(out["c"]))
    assert not torch.equal(samples(out["a"]), samples(out["plain"]))


def test_a_curve_from_the_detector_serves_all_three(host: Host) -> None:
    known = {"curve": ["d", 3]}
    out = host.run(
        {
            "lab": lab(4),
            "d": detector(),
            "a": deferred(**known),
            "patch": patch(**known),
            "b": ksampler(model=PATCHED),
            **custom(guider(**known)),
            "measured": deferred(),
        }
    )
    assert torch.equal(samples(out["a"]), samples(out["b"]))
    assert torch.equal(samples(out["a"]), samples(out["c"]))
    assert torch.equal(samples(out["a"]), samples(out["measured"])), "what it measures, the detector measured before"


@pytest.mark.parametrize("mode", ["off", "dynamic"])
def test_the_patch_leaves_ordinary_prompts_and_bypass_alone(host: Host, mode: str) -> None:
    plain = {"positive": ORDINARY}
    out = host.run({"lab": lab(3), "patch": patch(mode), "a": ksampler(model=PATCHED, **plain), "b": ksampler(**plain)})
    assert torch.equal(samples(out["a"]), samples(out["b"]))
    if mode == "off":
        assert out["patch"][0] is out["lab"][0], "nothing to undo"


def test_a_patched_model_begins_anew_in_every_run(host: Host) -> None:
    prompt = {
        "lab": lab(3),
        "patch": patch(),
        "a": ksampler(model=PATCHED),
        "other": ksampler(model=PATCHED, positive=ORDINARY, steps=12),
        "more": lab(5),
        "big": ksampler(model=PATCHED, latent_image=["more", 4]),
    }
    first, again = host.run(prompt), host.run({**prompt, "b": ksampler(model=PATCHED, cfg=7.0)})
    assert torch.equal(samples(first["a"]), samples(again["b"]))
    assert torch.equal(samples(first["a"]), samples(again["a"]))


def test_advanced_sampling_in_two_stages_defers_in_each(host: Host) -> None:
    """Stages before, across and after the latest start; together as good as one run."""
    out = host.run(
        {
            "lab": lab(32),
            "patch": patch(),
            "one": advanced(0, 10, ["lab", 4], model=PATCHED),
            "two": advanced(10, 50, ["one", 0], model=PATCHED),
            "whole": advanced(0, 50, ["lab", 4], model=PATCHED),
            "k": ksampler(model=PATCHED),
            "plain": advanced(0, 50, ["lab", 4]),
        }
    )
    assert torch.equal(samples(out["whole"]), samples(out["k"]))
    assert exact.is_copy(out["plain"][0]).float().mean() >= 0.95
    assert exact.is_copy(out["two"][0]).float().mean() <= 0.05


def test_a_stage_after_the_latest_start_is_simply_guided(host: Host) -> None:
    late = {"lab": lab(3), "patch": patch(), "one": advanced(0, 30, ["lab", 4])}
    stages = {"two": advanced(30, 50, ["one", 0], model=PATCHED), "plain": advanced(30, 50, ["one", 0])}
    out = host.run({**late, **stages})
    assert torch.equal(samples(out["two"]), samples(out["plain"]))


def test_image_to_image_is_judged_from_where_it_begins(host: Host) -> None:
    """From the memorized latent itself, noised to 60 %, no deferral helps, and nothing breaks."""
    given = {"img": {"samples": exact.x_mem().expand(4, -1, -1, -1).clone()}}
    start = {"latent_image": ["img", 0], "denoise": 0.6}
    out = host.run(
        {"lab": lab(4), "patch": patch(), "a": deferred(**start), "b": ksampler(model=PATCHED, **start)}, given
    )
    assert torch.equal(samples(out["a"]), samples(out["b"]))
    assert out["a"][1].sigmas[0] < 14


def test_a_curve_of_another_batch_is_refused_by_the_patch_too(host: Host) -> None:
    prompt = {"lab": lab(2), "d": detector(), "patch": patch(curve=["d", 3]), "more": lab(3)}
    with pytest.raises(NodeError, match="batch of 2"):
        host.run({**prompt, "k": ksampler(model=PATCHED, latent_image=["more", 4])})


def test_a_curve_of_other_steps_is_read_by_noise_level(host: Host) -> None:
    out = host.run({"lab": lab(4), "d": detector(steps=25), "k": deferred(curve=["d", 3])})
    wanted = out["d"][3].transition_sigma
    begun = out["k"][1].sigmas[out["k"][1].transition]
    assert (begun <= wanted * 1.001).all() and (begun >= wanted * 0.8).all()


@pytest.mark.parametrize("way", ["sampler", "patch", "guider"])
def test_each_of_them_says_on_its_own_node_what_it_did(host: Host, way: str) -> None:
    runs = {
        "sampler": {"own": deferred()},
        "patch": {"own": patch(), "b": ksampler(model=["own", 0])},
        "guider": custom(guider()),
    }
    node = "guider" if way == "guider" else "own"
    host.run({"lab": lab(2), **runs[way]})
    view = host.views(node)[-1]
    assert view["done"] and "In a basin: 2 of 2 images; guided from step" in view["headline"]
    assert len(view["begins"]) == 2 and all(len(s["lines"]) == 2 for s in view["series"])
