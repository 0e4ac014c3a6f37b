"""One mechanism under three nodes: the sampler, the guider and the model patch give the same bits."""

import pytest

from support.executor import Host
from support.graphs import ORDINARY, custom, deferred, detector, guider, ksampler, lab, patch, stage
from support.lab_pack import exact
from support.outcomes import copies, same_bits

PATCHED = ["patch", 0]


@pytest.mark.parametrize(
    ("name", "mode", "changed"),
    [
        ("euler", "dynamic", {}),
        ("heun", "dynamic", {}),
        ("dpmpp_2m", "static", {"start_percent": 0.3}),
        ("heun", "dynamic", {"pre_escape_cfg": -2.0}),
    ],
)
def test_they_give_the_same_bits(host: Host, name: str, mode: str, changed: dict) -> None:
    out = host.run(
        {
            "lab": lab(4),
            "a": deferred(mode, sampler_name=name, **changed),
            "patch": patch(mode, **changed),
            "b": ksampler(model=PATCHED, sampler_name=name),
            "guider": guider(mode, **changed),
            **custom(["guider", 0], sampler_name=name),
            "plain": ksampler(sampler_name=name),
        }
    )
    assert same_bits(out["a"], out["b"], out["custom"])
    assert not same_bits(out["a"], out["plain"])


def test_a_curve_from_the_detector_serves_all_three(host: Host) -> None:
    known = {"curve": ["d", 3]}
    out = host.run(
        {
            "lab": lab(4),
            "d": detector(),
            "a": deferred(**known),
            "patch": patch(**known),
            "b": ksampler(model=PATCHED),
            "guider": guider(**known),
            **custom(["guider", 0]),
            "measured": deferred(),
        }
    )
    assert same_bits(out["a"], out["b"], out["custom"])
    assert same_bits(out["a"], out["measured"]), "what it measures, the detector measured before"


@pytest.mark.parametrize("mode", ["off", "dynamic"])
def test_the_patch_leaves_ordinary_prompts_and_bypass_alone(host: Host, mode: str) -> None:
    plain = {"positive": ORDINARY}
    out = host.run({"lab": lab(3), "patch": patch(mode), "a": ksampler(model=PATCHED, **plain), "b": ksampler(**plain)})
    assert same_bits(out["a"], out["b"])
    if mode == "off":
        assert out["patch"][0] is out["lab"][0], "nothing to undo"


def test_advanced_sampling_in_two_stages_defers_in_each(host: Host) -> None:
    """Stages before, across and after the latest start; together as good as one run."""
    out = host.run(
        {
            "lab": lab(32),
            "patch": patch(),
            "one": stage(0, 10, model=PATCHED),
            "two": stage(10, 50, latent_image=["one", 0], model=PATCHED),
            "whole": stage(0, 50, model=PATCHED),
            "k": ksampler(model=PATCHED),
            "plain": stage(0, 50),
        }
    )
    assert same_bits(out["whole"], out["k"])
    assert copies(out["plain"]) >= 0.95
    assert copies(out["two"]) <= 0.05


def test_a_stage_after_the_latest_start_is_simply_guided(host: Host) -> None:
    late = {"latent_image": ["one", 0]}
    stages = {"two": stage(30, 50, **late, model=PATCHED), "plain": stage(30, 50, **late)}
    out = host.run({"lab": lab(3), "patch": patch(), "one": stage(0, 30), **stages})
    assert same_bits(out["two"], out["plain"])


def test_image_to_image_is_judged_from_where_it_begins(host: Host) -> None:
    """From the memorized latent itself, noised to 60 %, no deferral helps, and nothing breaks."""
    given = {"img": {"samples": exact.x_mem().expand(4, -1, -1, -1).clone()}}
    start = {"latent_image": ["img", 0], "denoise": 0.6}
    out = host.run(
        {"lab": lab(4), "patch": patch(), "a": deferred(**start), "b": ksampler(model=PATCHED, **start)}, given
    )
    assert same_bits(out["a"], out["b"])
    assert out["a"][1].sigmas[0] < 14


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
        "guider": {"own": guider(), **custom(["own", 0])},
    }
    host.run({"lab": lab(2), **runs[way]})
    view = host.views("own")[-1]
    assert view["done"] and "Memorized: 2 of 2 images; guided from step" in view["headline"]
    assert len(view["begins"]) == 2 and all(len(s["lines"]) == 2 for s in view["series"])
