"""AMG Guidance through the real executor, on the exact model: its memorized latent is the one reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.executor import Host
from support.graphs import MODEL, ORDINARY, amg, deferred, ksampler, lab, optimizer, references
from support.lab_pack import exact

GUIDED = ["g", 0]
SAMPLERS = ["euler", "heun", "dpmpp_2m", "dpmpp_sde", "uni_pc"]
OFF = {"despecification": 0.0, "dissimilarity": 0.0}


def works(copies: int = 1) -> dict[str, Any]:
    return {"works": {"samples": exact.x_mem().repeat(copies, 1, 1, 1)}}


def run(host: Host, given: dict[str, Any] | None = None, batch: int = 24, kind: str = "eps", **nodes: Any) -> dict:
    return host.run({"lab": lab(batch, kind), "refs": references(), **nodes}, works() | (given or {}))


def samples(output: list) -> Tensor:
    return output[0]["samples"]


def copies(output: list) -> float:
    return float(exact.is_copy(output[0]).float().mean())


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_default_settings_stop_the_copying(host: Host, kind: str) -> None:
    out = run(host, kind=kind, a=ksampler(), g=amg(), b=ksampler(model=GUIDED))
    assert copies(out["a"]) >= 0.95
    assert copies(out["b"]) == 0
    assert exact.rmse(out["b"][0]).max() < 1.2, "and the pictures are not thrown far away"


@pytest.mark.parametrize("name", SAMPLERS)
def test_default_settings_work_with_every_kind_of_sampler(host: Host, name: str) -> None:
    out = run(host, a=ksampler(sampler_name=name), g=amg(), b=ksampler(model=GUIDED, sampler_name=name))
    assert copies(out["a"]) >= 0.95
    assert copies(out["b"]) == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_ordinary_prompt_is_bit_identical(host: Host, name: str) -> None:
    plan = {"positive": ORDINARY, "sampler_name": name}
    out = run(host, batch=4, a=ksampler(**plan), g=amg(), b=ksampler(model=GUIDED, **plan))
    assert torch.equal(samples(out["a"]), samples(out["b"]))


GATE = {"memorized_threshold": 0.02}


@pytest.mark.parametrize("kind", exact.PARAMETERISATIONS)
def test_a_prompt_that_pulls_is_steered_through_the_gate_as_without_it(host: Host, kind: str) -> None:
    nodes = {"g": amg(), "b": ksampler(model=GUIDED), "h": amg(**GATE), "c": ksampler(model=["h", 0])}
    out = run(host, kind=kind, **nodes)
    assert copies(out["c"]) == 0
    assert torch.equal(samples(out["b"]), samples(out["c"]))


def test_a_prompt_that_does_not_pull_passes_the_gate_even_beside_a_reference(host: Host) -> None:
    """The reference is what the ordinary prompt draws: without the gate it would be steered away from."""
    plain = run(host, batch=1, a=ksampler(positive=ORDINARY))
    given = {"works": {"samples": samples(plain["a"]).clone()}}
    plan = {"positive": ORDINARY}
    nodes = {"g": amg(), "b": ksampler(model=GUIDED, **plan), "h": amg(**GATE), "c": ksampler(model=["h", 0], **plan)}
    out = run(host, given, batch=1, **nodes)
    assert not torch.equal(samples(plain["a"]), samples(out["b"]))
    assert torch.equal(samples(plain["a"]), samples(out["c"]))


@pytest.mark.parametrize("changed", [{"cfg": 1.0}, {"denoise": 0.6}], ids=["without guidance", "begun late"])
def test_where_nothing_can_be_told_the_gate_is_open(host: Host, changed: dict[str, float]) -> None:
    out = run(
        host,
        batch=4,
        g=amg(),
        b=ksampler(model=GUIDED, **changed),
        h=amg(**GATE),
        c=ksampler(model=["h", 0], **changed),
    )
    assert torch.equal(samples(out["b"]), samples(out["c"]))


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_the_gate_is_open_for_those_whose_guidance_waits(host: Host, mode: str) -> None:
    out = run(host, batch=8, h=amg(**GATE), c=deferred(mode, model=["h", 0], start_percent=0.3))
    assert copies(out["c"]) == 0


def test_all_scales_0_is_the_model_itself(host: Host) -> None:
    out = run(host, batch=4, a=ksampler(), g=amg(**OFF), b=ksampler(model=GUIDED))
    assert out["g"][0] is out["lab"][0]
    assert torch.equal(samples(out["a"]), samples(out["b"]))


def test_eps_and_v_are_guided_alike(host: Host) -> None:
    found = [run(host, kind=k, g=amg(), b=ksampler(model=GUIDED))["b"] for k in ("eps", "v")]
    torch.testing.assert_close(samples(found[0]), samples(found[1]), atol=1e-2, rtol=0)


def test_each_guidance_does_its_part(host: Host) -> None:
    out = run(
        host,
        batch=48,
        s=amg(dissimilarity=0.0),
        a=ksampler(model=["s", 0]),
        w=amg(despecification=0.0),
        b=ksampler(model=["w", 0]),
    )
    assert 0.4 < copies(out["a"]) < 0.9, "despecification alone: scale 1 is still inside the basin"
    assert copies(out["b"]) == 0


def test_through_the_model_needs_more_strength(host: Host) -> None:
    """Inside the basin the prediction hardly depends on x, so the paper's gradient is small there."""
    plan = {"gradient": "through model"}
    out = run(
        host, g=amg(**plan), b=ksampler(model=GUIDED), h=amg(dissimilarity=100.0, **plan), c=ksampler(model=["h", 0])
    )
    assert 0 < copies(out["b"]) < 0.4
    assert copies(out["c"]) == 0


def test_two_runs_of_one_patched_model_are_equal_and_leave_the_given_one_alone(host: Host) -> None:
    out = run(host, batch=4, a=ksampler(), g=amg(), b=ksampler(model=GUIDED), c=ksampler(model=GUIDED, seed=8))
    again = run(host, batch=4, g=amg(), b=ksampler(model=GUIDED), a=ksampler())
    assert torch.equal(samples(out["b"]), samples(again["b"]))
    assert torch.equal(samples(out["a"]), samples(again["a"]))
    assert not torch.equal(samples(out["b"]), samples(out["c"]))


def test_samples_are_guided_as_they_would_be_alone(host: Host) -> None:
    whole = run(host, batch=6, g=amg(), b=ksampler(model=GUIDED))["b"]
    one = {"one": {"samples": torch.zeros(1, *exact.SHAPE), "batch_index": [4]}}
    single = run(host, one, batch=6, g=amg(), b=ksampler(model=GUIDED, latent_image=["one", 0]))["b"]
    torch.testing.assert_close(samples(single)[0], samples(whole)[4], atol=1e-4, rtol=0)


def test_image_to_image_starts_where_its_schedule_starts(host: Host) -> None:
    """Half way in from the memorized picture itself: vanilla stays there, guided it leaves."""
    start = {"latent_image": ["works", 0], "denoise": 0.7}
    out = run(host, batch=1, a=ksampler(**start), g=amg(), b=ksampler(model=GUIDED, **start))
    assert copies(out["a"]) == 1 and copies(out["b"]) == 0


def test_every_second_step(host: Host) -> None:
    out = run(host, g=amg(every=2), b=ksampler(model=GUIDED))
    assert copies(out["b"]) <= 0.05


def test_constant_growth(host: Host) -> None:
    out = run(host, g=amg(dissimilarity_growth="constant"), b=ksampler(model=GUIDED))
    assert copies(out["b"]) == 0


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


# --- with others ---


def test_with_deferred_cfg_and_optimized_noise(host: Host) -> None:
    sampler = deferred(model=GUIDED, noise=["o", 0])
    out = run(host, g=amg(), o=optimizer(max_iterations=20), b=sampler, c=deferred(model=GUIDED))
    assert copies(out["b"]) == 0 and copies(out["c"]) == 0
    assert out["c"][1].transition.max() > 0, "CFG was deferred as without guidance"


def test_deferred_cfg_off_is_the_guided_ksampler(host: Host) -> None:
    out = run(host, batch=4, g=amg(), a=ksampler(model=GUIDED), b=deferred("off", model=GUIDED))
    assert torch.equal(samples(out["a"]), samples(out["b"]))


@pytest.mark.parametrize("outermost", ["amg", "deferral"])
def test_patched_in_either_order_with_deferral(host: Host, outermost: str) -> None:
    room, escape = host.module("memorization_guard", "methods.deferred_cfg.patch"), host.module("memorization_guard")
    rule = host.module(escape.__name__.rpartition(".")[2], "mitigation.escape.rules").EscapeRule()
    made = exact.build()
    plan = host.module("memorization_guard", "methods.deferred_cfg.plan").DeferralPlan(rule=rule, start_percent=0.5)
    if outermost == "amg":
        out = run(host, {"m": room.add_deferred_cfg(made, plan)}, g=amg(model=["m", 0]), b=ksampler(model=GUIDED))
    else:
        guided = run(host, {"m": made}, g=amg(model=["m", 0]))["g"][0]
        out = run(host, {"d": room.add_deferred_cfg(guided, plan)}, b=ksampler(model=["d", 0]))
    assert copies(out["b"]) == 0


def test_with_other_patches(host: Host) -> None:
    """RescaleCFG replaces the guidance, PAG adds a post-CFG hook with a model call of its own."""
    rescale = {"class_type": "RescaleCFG", "inputs": {"model": MODEL, "multiplier": 0.3}}
    pag = {"class_type": "PerturbedAttentionGuidance", "inputs": {"model": ["r", 0], "scale": 3.0}}
    both = {"r": rescale, "p": pag}
    clip = {"clip": exact.TextEncoder()} | works(2)
    out = host.run(
        {
            **{"lab": lab(12), "refs": references("memorized\nmemorized"), **both},
            "g": amg(model=["p", 0], clip=["clip", 0], deduplication=13.0),
            "a": ksampler(model=["p", 0]),
            "b": ksampler(model=GUIDED),
        },
        clip,
    )
    assert copies(out["a"]) >= 0.9
    assert copies(out["b"]) == 0


def test_the_last_hook_does_not_undo_the_guidance(host: Host) -> None:
    """A hook that pulls to the memorized latent, patched on after AMG Guidance, is seen by it."""
    guided = run(host, g=amg())["g"][0].clone()
    guided.set_model_sampler_post_cfg_function(lambda args: 0.5 * args["denoised"] + 0.5 * exact.x_mem())
    assert copies(run(host, {"m": guided}, b=ksampler(model=["m", 0]))["b"]) == 0


def test_two_sets(host: Host) -> None:
    other = {"other": {"samples": torch.randn(1, *exact.SHAPE, generator=torch.Generator().manual_seed(1))}}
    second = {"class_type": "MG_ReferencesFromLatents", "inputs": {"latents": ["other", 0], "captions": ""}}
    out = run(
        host, other, second=second, h=amg(references=["second", 0]), g=amg(model=["h", 0]), b=ksampler(model=GUIDED)
    )
    assert copies(out["b"]) == 0


# --- deduplication ---


def deduplicated(host: Host, captions: str, batch: int = 24, **changed: Any) -> tuple[dict, list[list[int]]]:
    """A run whose set holds the memorized latent three times, and what each model call evaluated."""
    batches: list[list[int]] = []
    model = exact.build()

    def watched(apply_model, args):
        batches.append(args["cond_or_uncond"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(watched)
    node = amg(**{"model": ["m", 0], "clip": ["clip", 0], "deduplication": 13.0, **OFF, **changed})
    prompt = {"lab": lab(batch), "refs": references(captions), "g": node, "b": ksampler(model=GUIDED)}
    return host.run(prompt, works(3) | {"m": model, "clip": exact.TextEncoder()}), batches


def test_a_duplicated_caption_is_evaluated_in_a_call_of_the_hosts_shape(host: Host) -> None:
    out, batches = deduplicated(host, "memorized\nmemorized\nmemorized")
    sampler, caption = [b for b in batches if len(b) == 2], [b for b in batches if len(b) == 1]
    assert len(sampler) == 50 and len(sampler) + len(caption) == len(batches)
    assert all(b == [0] for b in caption), "labelled as the prompt; never a third entry"
    assert 0 < len(caption) <= 50 and [len(b) for b in batches[:3]] == [2, 1, 2]
    alone = run(host, s=amg(dissimilarity=0.0), a=ksampler(model=["s", 0]))
    assert abs(copies(out["b"]) - copies(alone["a"])) < 0.05, "the caption is the prompt: the same as despecification"


def test_captions_of_their_own_are_not_deduplicated(host: Host) -> None:
    out, batches = deduplicated(host, "memorized\nordinary\nanother")
    vanilla = run(host, a=ksampler())
    assert all(len(b) == 2 for b in batches)
    assert torch.equal(samples(out["b"]), samples(vanilla["a"]))


def test_deduplication_away_from_another_caption(host: Host) -> None:
    """ε(y_N) = ε(∅) for the null prompt: duplicated, voted, and nothing to steer away from."""
    out, batches = deduplicated(host, "null\nnull\nmemorized")
    vanilla = run(host, a=ksampler())
    assert any(len(b) == 1 for b in batches)
    torch.testing.assert_close(samples(out["b"]), samples(vanilla["a"]), atol=1e-4, rtol=0)


def test_all_three_together(host: Host) -> None:
    out, _ = deduplicated(host, "memorized", despecification=5.0, dissimilarity=10.0)
    assert copies(out["b"]) == 0


# --- the trace ---


def test_the_trace_tells_what_was_seen_and_done(host: Host) -> None:
    room, maths = (
        host.module("memorization_guard", "methods.amg.patch"),
        host.module("memorization_guard", "mitigation.amg.guidance"),
    )
    plans, similar = host.module("memorization_guard", "methods.amg.plan"), run(host)["refs"][0]
    ended, steps = [], []
    guidance = maths.GuidanceStrengths(despecification=13.0, dissimilarity=10.0)
    plan = plans.AMGPlan(
        similar,
        guidance,
        on_end=ended.append,
        on_step=lambda trace: steps.append(int((~trace.threshold.isnan()).sum()) - 1),
    )
    model = room.add_amg(exact.build(), plan)
    run(host, {"m": model}, batch=6, b=ksampler(model=["m", 0], sampler_name="heun"))
    (trace,) = ended
    assert trace.closeness.shape == (6, 50) and not trace.closeness.isnan().any()
    assert (trace.nearest == 0).all()
    assert trace.threshold[0] == pytest.approx(0.5, abs=1e-3) and trace.threshold[-1] == pytest.approx(0.6, abs=0.01)
    above = trace.closeness > trace.threshold
    assert (trace.despecification[above] > 0).all() and above[:, 0].all()
    assert trace.despecification.max() == pytest.approx(6.0)
    assert (trace.dissimilarity <= 4 + 1e-4).all() and trace.dissimilarity[:, 0].min() > 0
    assert steps[0] == 0 and steps[-1] == 49 and len(steps) == 99, "two evaluations a step but the last"
    run(host, {"m": model}, batch=2, b=ksampler(model=["m", 0]))
    assert len(ended) == 2 and ended[1].batch == 2, "a fresh trace for every run"
