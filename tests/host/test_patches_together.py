"""Patches of this pack on one model, and what each of them must not see or answer of another's run."""

import re
from typing import Any

import comfy.conds
import pytest
import torch

from support.executor import Host
from support.graphs import ORDINARY, amg, calibrate, ksampler, lab, node, optimizer, patch
from support.graphs import checkpoint as on_lab
from support.graphs.features import Feature
from support.lab_files import EXTRAS
from support.lab_pack import exact
from support.outcomes import GUIDED, copies, run, same_bits, samples
from support.paths import PACK

CONTROL = EXTRAS["ControlNet"]


def test_the_null_prompt_keeps_the_controlnet_of_the_negative_prompt(host: Host, checkpoint) -> None:
    """Otherwise the pull of a ControlNet would count as the prompt's, and deferred steps would not be controlled."""
    applied = CONTROL.nodes["pos"]
    feature = Feature(
        {
            **CONTROL.nodes,
            "neg": on_lab.text("a green ring"),
            "pos": {**applied, "inputs": {**applied["inputs"], "negative": ["neg", 0]}},
            "controlled": applied,
        },
        CONTROL.links,
        CONTROL.make,
    )
    links = feature.inputs()
    nodes = {}
    for name, null in (("bare", ["null", 0]), ("own", ["controlled", 1])):
        nodes[f"run {name}"] = on_lab.deferred("static", **links, null=null, start_percent=on_lab.START)
        nodes[f"found {name}"] = on_lab.detector(**links, null=null)
        nodes[f"noise {name}"] = on_lab.optimizer("search", candidates=1, **links, null=null)
    out = host.run(feature.prompt(**nodes), feature.given(checkpoint))
    assert same_bits(out["run bare"], out["run own"])
    torch.testing.assert_close(out["found bare"][3].d, out["found own"][3].d, equal_nan=True)
    bare, own = (out[f"noise {name}"][1].before for name in ("bare", "own"))
    torch.testing.assert_close(bare, own)


def reanchor(model: list, **changed: object) -> dict:
    own = {"memorized_threshold": 0.02, "rewording_threshold": 0.012}
    return node("MG_PromptReanchor", **{"model": model, "reworded": ORDINARY, **own, **changed})


def test_another_wording_behind_a_deferral_is_judged_where_guidance_begins(host: Host) -> None:
    nodes = {
        "d": patch(mode="static", start_percent=0.1),
        "p": reanchor(["d", 0], memorized_threshold=0.0121),
        "k": ksampler(model=["p", 0]),
    }
    out = host.run({"lab": lab(8), **nodes, "alone": ksampler(model=["d", 0])})
    assert re.match("The other wording was used for [78] of 8 images", host.views("p")[-1]["headline"])
    assert copies(out["alone"]) > 0.5 and copies(out["k"]) <= 1 / 8


@pytest.mark.parametrize("scale", [0.0, 1.0, -1.0])
def test_what_a_deferral_has_predicted_answers_for_its_own_prompts_alone(host: Host, scale: float) -> None:
    calls = host.module(PACK, "adapter.model_call")
    seen: list[tuple] = []

    def look(executor: Any, x: torch.Tensor, sigma: torch.Tensor, options: dict, seed: int | None) -> torch.Tensor:
        guider = executor.class_obj
        asked = [guider.conds["positive"], guider.conds["negative"]]
        pair = calls.denoised_predictions(guider.inner_model, *asked, x, sigma, options)
        own = calls.denoised_predictions(guider.inner_model, guider.conds["own"], None, x, sigma, options)[0]
        seen.append((pair, own))
        return executor(x, sigma, options, seed)

    def keep_own(executor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        executor.class_obj.conds["own"] = [cond.copy() for cond in executor.class_obj.conds["positive"]]
        return executor(*args, **kwargs)

    model = host.run({"lab": lab(2), "d": patch(mode="static", start_percent=0.5, pre_escape_cfg=scale)})["d"][0]
    model = model.clone()
    model.add_wrapper_with_key("outer_sample", "test", keep_own)
    model.add_wrapper_with_key("predict_noise", "test", look)
    host.run({"lab": lab(2), "k": ksampler(model=["m", 0], steps=4)}, {"m": model})
    (cond, uncond), own = seen[0]
    assert torch.equal(cond, uncond) == (scale in (0.0, 1.0)), "what the deferral guides with"
    assert torch.allclose(own, cond, atol=1e-4) == (scale != 0.0)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_amg_behind_a_deferral_differentiates_the_model(host: Host, scale: float) -> None:
    before = patch(mode="static", start_percent=0.3, pre_escape_cfg=scale)
    guide = amg(model=["d", 0], gradient="through model", dissimilarity=100.0)
    out = run(host, batch=8, d=before, g=guide, b=ksampler(model=GUIDED))
    assert copies(out["b"]) == 0 and bool(samples(out["b"]).isfinite().all())


def test_a_run_that_only_measures_is_no_run_of_the_patches_on_its_model(host: Host) -> None:
    nodes = {
        "d": patch(),
        "o": optimizer("search", model=["d", 0], candidates=1),
        "c": calibrate("ordinary", model=["d", 0]),
    }
    host.run({"lab": lab(1), **nodes}, {"clip": exact.TextEncoder()})
    assert not host.views("d")
    host.run({"lab": lab(1), "d": patch(), "k": ksampler(model=["d", 0])})
    assert host.views("d")


def test_the_guards_first_run_draws_what_its_later_runs_draw(host: Host, checkpoint) -> None:
    """Token Merging draws from the global state, which KSampler seeds before the guard measures ordinary prompts."""
    nodes = {
        "t": node("TomePatchModel", model=["m", 0], ratio=0.3),
        "g": node("MG_Guard", model=["t", 0], clip=["clip", 0], strength="gentle", ordinary_prompts="a blue ring"),
    }
    model = host.run(nodes, checkpoint)["g"][0]
    again = {**on_lab.base(), "k": on_lab.ksampler(model=["guarded", 0])}
    first, second = (host.run(again, {**checkpoint, "guarded": model})["k"] for _ in range(2))
    assert same_bits(first, second)


def test_frames_of_one_video_are_evaluated_together(host: Host) -> None:
    rows = host.module(PACK, "adapter.batch_rows")
    cond = {"model_conds": {"num_video_frames": comfy.conds.CONDConstant(14)}}
    assert rows.can_drop_rows({"positive": [{"model_conds": {}}]}, {})
    assert not rows.can_drop_rows({"positive": [cond], "negative": None}, {})
