"""AMG Guidance through the real executor, on the exact model: its memorized latent is the one reference."""

import pytest
import torch

from support.amg_runs import GUIDED, run
from support.executor import Host
from support.graphs import ORDINARY, amg, deferred, ksampler
from support.lab_pack import exact
from support.outcomes import copies, same_bits, samples

SAMPLERS = ["euler", "heun", "dpmpp_2m", "dpmpp_sde", "uni_pc"]
OFF = {"despecification": 0.0, "dissimilarity": 0.0}


@pytest.mark.parametrize("name", SAMPLERS)
def test_default_settings_work_with_every_kind_of_sampler(host: Host, name: str) -> None:
    out = run(host, a=ksampler(sampler_name=name), g=amg(), b=ksampler(model=GUIDED, sampler_name=name))
    assert copies(out["a"]) >= 0.95
    assert copies(out["b"]) == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_ordinary_prompt_is_bit_identical(host: Host, name: str) -> None:
    plan = {"positive": ORDINARY, "sampler_name": name}
    out = run(host, batch=4, a=ksampler(**plan), g=amg(), b=ksampler(model=GUIDED, **plan))
    assert same_bits(out["a"], out["b"])


GATE = {"memorized_threshold": 0.02}


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_a_prompt_that_pulls_is_steered_through_the_gate_as_without_it(host: Host, kind: str) -> None:
    nodes = {"g": amg(), "b": ksampler(model=GUIDED), "h": amg(**GATE), "c": ksampler(model=["h", 0])}
    out = run(host, kind=kind, **nodes)
    assert copies(out["c"]) == 0
    assert same_bits(out["b"], out["c"])


def test_a_prompt_that_does_not_pull_passes_the_gate_even_beside_a_reference(host: Host) -> None:
    """The reference is what the ordinary prompt draws: without the gate it would be steered away from."""
    plain = run(host, batch=1, a=ksampler(positive=ORDINARY))
    given = {"works": {"samples": samples(plain["a"]).clone()}}
    plan = {"positive": ORDINARY}
    nodes = {"g": amg(), "b": ksampler(model=GUIDED, **plan), "h": amg(**GATE), "c": ksampler(model=["h", 0], **plan)}
    out = run(host, given, batch=1, **nodes)
    assert not same_bits(plain["a"], out["b"])
    assert same_bits(plain["a"], out["c"])


@pytest.mark.parametrize("changed", [{"cfg": 1.0}, {"denoise": 0.6}], ids=["without guidance", "begun late"])
def test_where_nothing_can_be_told_the_gate_is_open(host: Host, changed: dict[str, float]) -> None:
    nodes = {"h": amg(**GATE), "c": ksampler(model=["h", 0], **changed)}
    out = run(host, batch=4, g=amg(), b=ksampler(model=GUIDED, **changed), **nodes)
    assert same_bits(out["b"], out["c"])


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_the_gate_is_open_for_those_whose_guidance_waits(host: Host, mode: str) -> None:
    out = run(host, batch=8, h=amg(**GATE), c=deferred(mode, model=["h", 0], start_percent=0.3))
    assert copies(out["c"]) == 0


def test_all_scales_0_is_the_model_itself(host: Host) -> None:
    out = run(host, batch=4, a=ksampler(), g=amg(**OFF), b=ksampler(model=GUIDED))
    assert out["g"][0] is out["lab"][0]
    assert same_bits(out["a"], out["b"])


def test_eps_and_v_are_guided_alike(host: Host) -> None:
    found = [run(host, kind=k, g=amg(), b=ksampler(model=GUIDED))["b"] for k in ("eps", "v")]
    torch.testing.assert_close(samples(found[0]), samples(found[1]), atol=1e-2, rtol=0)


def test_each_guidance_does_its_part(host: Host) -> None:
    nodes = {"s": amg(dissimilarity=0.0), "w": amg(despecification=0.0)}
    out = run(host, batch=48, **nodes, a=ksampler(model=["s", 0]), b=ksampler(model=["w", 0]))
    assert 0.4 < copies(out["a"]) < 0.9, "despecification alone: scale 1 is still inside the basin"
    assert copies(out["b"]) == 0


def test_through_the_model_needs_more_strength(host: Host) -> None:
    """Inside the basin the prediction hardly depends on x, so the paper's gradient is small there."""
    plan = {"gradient": "through model"}
    strong = {"h": amg(dissimilarity=100.0, **plan), "c": ksampler(model=["h", 0])}
    out = run(host, g=amg(**plan), b=ksampler(model=GUIDED), **strong)
    assert 0 < copies(out["b"]) < 0.4
    assert copies(out["c"]) == 0


def test_image_to_image_starts_where_its_schedule_starts(host: Host) -> None:
    """Half way in from the memorized image itself: vanilla stays there, guided it leaves."""
    start = {"latent_image": ["works", 0], "denoise": 0.7}
    out = run(host, batch=1, a=ksampler(**start), g=amg(), b=ksampler(model=GUIDED, **start))
    assert copies(out["a"]) == 1 and copies(out["b"]) == 0


@pytest.mark.parametrize(("changed", "most"), [({"every": 2}, 0.05), ({"dissimilarity_growth": "constant"}, 0)])
def test_other_rhythms(host: Host, changed: dict, most: float) -> None:
    assert copies(run(host, g=amg(**changed), b=ksampler(model=GUIDED))["b"]) <= most


def test_cfg_1_leaves_dissimilarity_alone_to_act(host: Host, counted) -> None:
    model, calls = counted
    plan = {"g": amg(model=["m", 0]), "b": ksampler(model=GUIDED, cfg=1.0)}
    out = run(host, {"m": model}, batch=4, **plan)
    assert calls.pop_rows() == 4 * 50, "no second branch is asked for"
    assert copies(out["b"]) == 0


def test_the_node_says_what_the_run_did(host: Host) -> None:
    run(host, batch=3, g=amg(), b=ksampler(model=GUIDED))
    assert "3 of 3 images steered away" in host.views("g")[-1]["headline"]
    run(host, batch=3, g=amg(), b=ksampler(model=GUIDED, positive=ORDINARY))
    assert "nothing was changed" in host.views("g")[-1]["headline"]
