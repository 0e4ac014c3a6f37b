"""Calibrate Thresholds, Prompt Check, Plot Escape Curve, what the optimizer shows, and what the nodes cost."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cost.measurements import COLUMNS, evaluations, exact_model, figure
from benchmarks.lab.methods import CALIBRATED_ON, SMALL_THRESHOLD, TARGET, THRESHOLD
from benchmarks.scores import table
from support import graphs, small_lab
from support.executor import Host, NodeError
from support.graphs import ORDINARY, deferred, detector, lab, node, optimizer, references
from support.graphs import checkpoint as on_lab
from support.graphs.checkpoint import load
from support.outcomes import fails
from support.paths import LAB_CHECKPOINT, PACK

plot = partial(node, "MG_PlotCurve")


@pytest.fixture
def given(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {"m": checkpoint["m"], "clip": checkpoint["clip"], "latent": {"samples": torch.zeros(2, 4, 12, 12)}}


def calibrate(prompts: str, **changed: Any) -> dict[str, Any]:
    return graphs.calibrate(prompts, model=["m", 0], latent_image=["latent", 0], **changed)


def test_calibration_separates_memorized_from_ordinary_prompts(host: Host, given: dict[str, Any]) -> None:
    ordinary = small_lab.ordinary_prompts()
    prompts = "\n".join([*ordinary, "", " "])
    magnitude, target, threshold, summary, _ = host.run({"c": calibrate(prompts)}, given)["c"]
    assert 0.005 < magnitude < 0.012
    assert target == pytest.approx(magnitude)
    for caption in [caption for caption, _ in small_lab.training_pairs()[:6]]:
        assert host.run({"c": calibrate(caption)}, given)["c"][0] > threshold, caption
    assert f"{len(ordinary)} ordinary prompts × 2 noises" in summary
    assert summary.count("\n- ") == len(ordinary)


def test_the_benchmarks_thresholds_are_the_suggested_ones(host: Host, given: dict[str, Any]) -> None:
    """From captions that the benchmark does not sample, as an artist would: one noise, the node's own seed."""
    lab512 = {**load(host, LAB_CHECKPOINT), "latent": {"samples": torch.zeros(1, 4, 64, 64)}}
    _, target, threshold, *_ = host.run({"c": calibrate(CALIBRATED_ON, noise_seed=0)}, lab512)["c"]
    assert (target, threshold) == pytest.approx((TARGET, THRESHOLD), abs=1e-4)
    others = [c for c in small_lab.ordinary_captions() if c not in small_lab.ordinary_prompts()]
    one = {**given, "latent": {"samples": torch.zeros(1, 4, 12, 12)}}
    suggested = host.run({"c": calibrate("\n".join(others), noise_seed=0)}, one)["c"][2]
    assert len(others) == 48 and suggested == pytest.approx(SMALL_THRESHOLD, abs=1e-4)
    with pytest.raises(NodeError, match="`prompts` is empty"):
        host.run({"c": calibrate(" \n \n")}, given)


def colours(image: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(c) for c in (image[0].numpy() * 255).round().astype(np.uint8).reshape(-1, 3).tolist()}


def test_curves_of_several_runs_share_an_image(host: Host) -> None:
    runs = {"d": detector(), "quiet": detector(positive=ORDINARY), "k": deferred("static"), "off": deferred("off")}
    plots = {"one": plot(curve=["d", 3]), "both": plot(curve=["d", 3], curve_2=["quiet", 3])}
    plots |= {q: plot(curve=["k", 1], curve_2=["off", 1], quantity=q) for q in ("pull", "guidance magnitude")}
    out = host.run({"lab": lab(3), **runs, **plots})
    assert all(torch.isfinite(out[name][0]).all() for name in plots), "those without a measurement, too"
    single, pair = out["one"][0], out["both"][0]
    assert single.shape == pair.shape == (1, 512, 896, 3)
    assert single.mean() < 0.35, "a dark canvas"
    blue, orange, green = (102, 194, 255), (255, 159, 92), (126, 217, 133)
    assert {blue, orange, green} <= colours(single), "a colour for each image"
    assert {blue, orange} <= colours(pair) and green not in colours(pair), "a colour for each curve"
    host.run({"lab": lab(3), "opt": optimizer(max_iterations=3, target_magnitude=0.0)})
    said = [view["headline"] for view in host.views("opt")]
    assert any("per-sample 1/4: worst d/√dim 0.0" in t and "0 of 3 done" in t for t in said), said
    assert "reached by 0 of 3" in said[-1]
    assert [view["done"] for view in host.views("opt")] == [False] * (len(said) - 1) + [True]


LINKS = {"model": ["m", 0], "clip": ["clip", 0], "latent_image": ["latent", 0]}


def check(text: str, **changed: Any) -> dict[str, Any]:
    return node("MG_PromptCheck", **LINKS, **{"text": text, "noise_seed": 1, "memorized_threshold": 0.02, **changed})


def run(host: Host, given: dict[str, Any], batch: int = 2, **nodes: Any) -> dict[str, tuple]:
    return host.run({"latent": on_lab.empty(batch, 12), **nodes}, given)


def test_the_prompt_in_colour(host: Host, checkpoint: dict[str, Any]) -> None:
    out = run(host, checkpoint, c=check(on_lab.MEMORIZED), o=check(on_lab.ORDINARY))
    worst, best, pull, scores, summary = out["c"]
    pieces = host.views("c")[-1]["words"]
    shares = {piece["text"]: piece["share"] for piece in pieces}
    assert "".join(piece["text"] for piece in pieces) == on_lab.MEMORIZED and len(scores) == 6
    assert (
        shares[worst] == 1
        and shares[", "] == 0
        and max(scores) == scores[on_lab.MEMORIZED.replace(",", "").split().index(worst)]
    )
    assert best == " ".join(on_lab.MEMORIZED.replace(worst, "").split()) and pull > 0.02
    assert summary.splitlines()[0].startswith("Memorized prompt") and f'"{worst}" pulls most' in summary
    _, kept, calm, _, said = out["o"]
    assert kept == on_lab.ORDINARY and calm < 0.02 and said.startswith("No word stands out")
    assert all(piece["share"] == 0 for piece in host.views("o")[-1]["words"])


def test_it_measures_what_the_other_nodes_measure(host: Host, checkpoint: dict[str, Any]) -> None:
    """Calibrate Thresholds measures one prompt at a time, with the same noises."""
    texts = [on_lab.MEMORIZED, on_lab.ORDINARY, "a red disc"]
    prompt = {"c": check(texts[0], rewordings="\n".join(texts[1:])), **on_lab.base(2, 12)}
    for i, text in enumerate(texts):
        prompt[f"alone {i}"] = on_lab.calibrate(text, noise_seed=1)
    out = host.run(prompt, checkpoint)
    alone = [float(out[f"alone {i}"][3].splitlines()[-1].split()[1]) for i in range(3)]
    said = out["c"][4].splitlines()
    lines = [line.split(maxsplit=2) for line in said[said.index("Rewordings, those that pull least first:") + 1 :]]
    found = {line[2]: float(line[1]) for line in lines if line[0] == "-"}
    assert out["c"][2] == pytest.approx(alone[0], abs=6e-5)
    assert [found[text] for text in texts[1:]] == pytest.approx(alone[1:], abs=6e-5)
    assert out["c"][1] == min(texts[1:], key=found.__getitem__)


def test_it_costs_one_paired_evaluation_a_word_and_one_more(host: Host, checkpoint: dict[str, Any]) -> None:
    rows, without_prompt = 0, 0

    def count(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        nonlocal rows, without_prompt
        rows += len(args["input"])
        without_prompt += args["cond_or_uncond"].count(1) * len(args["input"]) // len(args["cond_or_uncond"])
        return apply(args["input"], args["timestep"], **args["c"])

    counted = checkpoint["m"].clone()
    counted.set_model_unet_function_wrapper(count)
    run(host, {**checkpoint, "m": counted}, batch=3, c=check(on_lab.MEMORIZED))
    assert rows == 3 * 2 * (6 + 1)  # noises, the two of a pair, words and one
    assert without_prompt == 3  # other packs take what is in the negative's place for no prompt


def test_a_long_prompt_goes_in_parts_and_nothing_is_nothing_to_check(host: Host, checkpoint: dict[str, Any]) -> None:
    text = ", ".join([on_lab.MEMORIZED, *[on_lab.ORDINARY] * 30])  # more than 75 tokens, and fewer without some words
    out = run(host, checkpoint, batch=1, c=check(text), again=check(text))
    assert len(out["c"][3]) == 6 + 3 * 30 and out["c"] == out["again"]
    prompt = {"latent": on_lab.empty(1, 12), "c": check("  ")}
    assert "`text` is empty" in fails(host, prompt, checkpoint).message
    _, best, _, scores, said = run(host, checkpoint, batch=1, c=check("()", memorized_threshold=0.0))["c"]
    assert best == "()" and scores == [] and "no words that could be left out" in said


MOST = 0.01  # of the run's processor time


def test_evaluations_on_the_exact_model(host: Host) -> None:
    rows = list(evaluations(exact_model(host)))
    assert len(rows) == 5
    assert all(row["verdict"] == "pass" for row in rows), "\n" + table(rows, COLUMNS)
    missed = (figure("m", "n", 1.1, 1.03, vanilla=1.0), figure("m", "n", 5, 4, exact=True))
    assert [row["verdict"] for row in missed] == ["SHORT", "SHORT"]


@pytest.mark.parametrize(("kind", "batch", "steps"), [("deferral", 16, 20), ("guidance", 4, 50)])
def test_a_view_costs_at_most_a_hundredth(host: Host, checkpoint, monkeypatch, kind, batch: int, steps: int) -> None:
    """On the small lab, whose steps are far shorter than those of any real model."""
    live = host.module(PACK, "adapter.live_view").LiveView
    spent: list[float] = []

    def seconds(work: Callable[[], Any]) -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    for name in ("show", "finish"):
        real = getattr(live, name)
        monkeypatch.setattr(live, name, lambda *a, real=real: spent.append(seconds(lambda: real(*a))))
    prompt = on_lab.base(batch, side=12)
    if kind == "deferral":
        prompt["s"] = on_lab.deferred(steps=steps, pre_escape_cfg=-1.0, start_percent=1.0)
    else:
        guided = {"g": on_lab.amg(), "s": on_lab.ksampler(model=["g", 0], steps=steps)}
        prompt |= {"works": on_lab.empty(3, side=12), "refs": references(), **guided}
    whole = seconds(lambda: host.run(prompt, given=checkpoint))
    sent = [data["view"] for event, data in host.events if event == f"{PACK}.view"]
    # The server writes them in its own thread, under the same lock.
    share = (sum(spent) + seconds(lambda: [json.dumps(view) for view in sent])) / whole
    print(f"\n{kind}, batch {batch}: {len(sent)} views in {whole:.2f} s, {share:.2%} of it")
    assert len(sent) > 2 and sent[-1]["done"]
    assert share <= MOST
