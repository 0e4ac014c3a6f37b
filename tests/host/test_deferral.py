"""Deferred CFG as sampler, guider and model patch, and Basin-Escape Detector, on the exact model."""

import pytest
import torch

from support.executor import Host
from support.graphs import ORDINARY, custom, deferred, detector, guider, ksampler, lab, node, patch, stage
from support.lab_pack import exact
from support.outcomes import copies, fails, same_bits, samples

PATCHED = ["patch", 0]


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmpp_2m", "heun", "dpmpp_sde"])
def test_off_and_an_ordinary_prompt_are_bit_identical_to_ksampler(host: Host, name: str) -> None:
    plan, ordinary = {"sampler_name": name}, {"positive": ORDINARY, "sampler_name": name}
    off = {"a": ksampler(**plan), "off": deferred("off", **plan, start_percent=0.9)}
    out = host.run({"lab": lab(3), **off, "b": ksampler(**ordinary), "dynamic": deferred(**ordinary)})
    assert same_bits(out["a"], out["off"]) and same_bits(out["b"], out["dynamic"])
    assert out["dynamic"][2] == 0


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "dpmpp_sde", "euler_ancestral", "ddpm"])
def test_dynamic_works_with_several_evaluations_a_step_and_with_added_noise(host: Host, name: str) -> None:
    """Samplers that add noise fall back into the basin: judged once and for all, 40 % are copies.

    Followed back, 0 % are (dpmpp_sde: 6–12 %, whose large mid-step noise returns after the last look).
    """
    out = host.run({"lab": lab(48), "b": deferred(sampler_name=name, start_percent=0.8)})
    assert copies(out["b"]) <= (0.15 if name == "dpmpp_sde" else 0.05)
    curve = out["b"][1]
    end = int((curve.sigmas > 0.05 * curve.sigmas[0]).sum())
    assert not curve.d[:, :end].isnan().any(), "every step of the deferral was measured"


def test_nothing_is_measured_longer_than_it_has_to_be(host: Host, counted) -> None:
    """The detector ends with the last escape, without a basin after one evaluation; its curve saves the sampler's."""
    model, calls = counted
    quiet = host.run({"lab": lab(6), "d": detector(model=["m", 0], positive=ORDINARY)}, {"m": model})["d"]
    assert quiet[:3] == [False, 0, 0.0] and calls.pop_rows() == 2 * 6
    memorized, step, percent, curve, plot = host.run({"lab": lab(6), "d": detector(model=["m", 0])}, {"m": model})["d"]
    assert memorized is True and calls.pop_rows() == 2 * 6 * (step + 1)
    assert step == curve.latest and 0 < percent < 1
    assert plot.shape[0] == 1 and plot.shape[-1] == 3 and plot.min() >= 0 and plot.max() <= 1
    out = host.run({"lab": lab(6), "b": deferred(model=["m", 0], curve=["c", 0])}, {"m": model, "c": curve})["b"]
    assert torch.equal(out[1].transition, curve.transition) and calls.pop_rows() < 2 * 6 * 50


def test_a_curve_of_other_steps_is_read_by_noise_level_and_its_percent_is_the_hosts(host: Host) -> None:
    nodes = {"d": detector(), "short": detector(steps=25), "k": deferred(curve=["short", 3])}
    out = host.run({"lab": lab(4), **nodes})
    begun, wanted = out["k"][1].sigmas[out["k"][1].transition], out["short"][3].transition_sigma
    assert (begun <= wanted * 1.001).all() and (begun >= wanted * 0.8).all()
    late = round(out["d"][2] + 0.001, 3)
    for name in ("sampler_name", "scheduler"):
        said = fails(host, {"lab": lab(1), "k": deferred(**{name: "magic"})}).message
        assert f"`{name}` is 'magic'" in said or f"{name}: 'magic' not in" in said, "newer hosts say it themselves"
    static = host.run({"lab": lab(4), "s": deferred("static", start_percent=late)})["s"]
    assert static[2] in (out["d"][1], out["d"][1] + 1)


def test_image_to_image_starts_where_its_schedule_starts(host: Host) -> None:
    """ddim_uniform leaves out the first timesteps and is a whole run."""
    cases = {
        "normal": {},
        "ddim_uniform": {"scheduler": "ddim_uniform"},
        "later": {"denoise": 0.4},
        "no": {"denoise": 0.0},
    }
    runs = {name: deferred(**changed) for name, changed in cases.items()}
    runs |= {"after none": deferred(curve=["no", 1]), "drawn": node("MG_PlotCurve", curve=["no", 1])}
    start = {"latent_image": ["img", 0], "denoise": 0.6}  # from the memorized latent no deferral helps
    runs |= {"patch": patch(), "judged": deferred(**start), "patched": ksampler(model=PATCHED, **start)}
    given = {"img": {"samples": exact.x_mem().expand(2, -1, -1, -1).clone()}}
    out = host.run({"lab": lab(2), **runs, "a": ksampler(denoise=0.4)}, given)
    assert same_bits(out["judged"], out["patched"]) and out["judged"][1].sigmas[0] < 14
    assert out["later"][2] == 0, "past start_percent already: guided from its first step"
    assert same_bits(out["a"], out["later"])
    assert torch.equal(samples(out["no"]), torch.zeros(2, *exact.SHAPE)), "a curve of no steps is one, too:"
    assert out["after none"][1].steps == 50 and out["drawn"][0].shape[0] == 1
    assert [round(out[name][1].threshold, 4) for name in ("normal", "ddim_uniform", "later")] == [0.02, 0.02, 0.01]


@pytest.mark.parametrize(
    ("name", "mode", "changed"),
    [
        ("euler", "dynamic", {}),
        ("heun", "dynamic", {}),
        ("dpmpp_2m", "static", {"start_percent": 0.3}),
        ("heun", "dynamic", {"pre_escape_cfg": -2.0}),
        ("euler", "dynamic", {"curve": ["d", 3]}),
    ],
)
def test_they_give_the_same_bits(host: Host, name: str, mode: str, changed: dict) -> None:
    plan = {"sampler_name": name}
    patched = {"patch": patch(mode, **changed), "b": ksampler(model=PATCHED, **plan)}
    guided = {"guider": guider(mode, **changed), **custom(["guider", 0], **plan)}
    sampled = {"a": deferred(mode, **plan, **changed), "plain": ksampler(**plan)}
    sampled |= {"d": detector(), "measured": deferred()}
    out = host.run({"lab": lab(4), **sampled, **patched, **guided})
    assert same_bits(out["a"], out["b"], out["custom"])
    assert not same_bits(out["a"], out["plain"])
    if "curve" in changed:
        assert same_bits(out["a"], out["measured"]), "what it measures, the detector measured before"


def test_scale_1_inside_is_cfg_1_and_the_patch_leaves_ordinary_prompts_alone_and_off_the_model(host: Host) -> None:
    plain = {"positive": ORDINARY}
    nodes = {"off": patch("off"), "patch": patch(), "a": ksampler(model=PATCHED, **plain), "b": ksampler(**plain)}
    scales = {"c": ksampler(cfg=1.0), "d": deferred("static", start_percent=1.0, pre_escape_cfg=1.0)}
    out = host.run({"lab": lab(3), **nodes, **scales})
    assert same_bits(out["a"], out["b"]) and same_bits(out["c"], out["d"])
    assert out["off"][0] is out["lab"][0], "nothing to undo"


def test_advanced_sampling_in_stages_defers_in_each(host: Host) -> None:
    """Stages before, across and after the latest start, which is simply guided; together as good as one run."""
    patched, late = {"model": PATCHED}, {"latent_image": ["begun", 0]}
    stages = {"one": stage(0, 10, **patched), "two": stage(10, 50, latent_image=["one", 0], **patched)}
    stages |= {"begun": stage(0, 30), "end": stage(30, 50, **late, **patched), "plain end": stage(30, 50, **late)}
    whole = {"whole": stage(0, 50, **patched), "k": ksampler(**patched), "plain": stage(0, 50)}
    opposite = {"dynamic": deferred(), "opposite": deferred(pre_escape_cfg=-3.0)}
    out = host.run({"lab": lab(32), "patch": patch(), **stages, **whole, **opposite})
    assert same_bits(out["whole"], out["k"]) and same_bits(out["end"], out["plain end"])
    assert copies(out["plain"]) >= 0.95 and copies(out["two"]) <= 0.05
    later, sooner = (out[name][1].transition.float().mean() for name in opposite)
    assert sooner < later - 2 and copies(out["opposite"]) <= 0.05, "opposite guidance leaves sooner"
