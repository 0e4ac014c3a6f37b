"""Prompt Check on the small lab: which words pull, what it costs, and what it says."""

from typing import Any

import pytest
import torch

from support.executor import Host
from support.graphs import checkpoint as on_lab
from support.graphs import node
from support.outcomes import fails

MEMORIZED, ORDINARY = on_lab.MEMORIZED, on_lab.ORDINARY
LINKS = {"model": ["m", 0], "clip": ["clip", 0], "latent_image": ["latent", 0]}


def check(text: str, **changed: Any) -> dict[str, Any]:
    return node("MG_PromptCheck", **LINKS, **{"text": text, "noise_seed": 1, "memorized_threshold": 0.02, **changed})


def run(host: Host, given: dict[str, Any], batch: int = 2, **nodes: Any) -> dict[str, tuple]:
    return host.run({"latent": on_lab.empty(batch, 12), **nodes}, given)


def test_the_prompt_in_colour(host: Host, checkpoint: dict[str, Any]) -> None:
    out = run(host, checkpoint, c=check(MEMORIZED), o=check(ORDINARY))
    worst, best, pull, scores, summary = out["c"]
    pieces = host.views("c")[-1]["words"]
    shares = {piece["text"]: piece["share"] for piece in pieces}
    assert "".join(piece["text"] for piece in pieces) == MEMORIZED and len(scores) == 6
    assert (
        shares[worst] == 1
        and shares[", "] == 0
        and max(scores) == scores[MEMORIZED.replace(",", "").split().index(worst)]
    )
    assert best == " ".join(MEMORIZED.replace(worst, "").split()) and pull > 0.02
    assert summary.splitlines()[0].startswith("Memorized prompt") and f'"{worst}" pulls most' in summary
    _, kept, calm, _, said = out["o"]
    assert kept == ORDINARY and calm < 0.02 and said.startswith("No word stands out")
    assert all(piece["share"] == 0 for piece in host.views("o")[-1]["words"])


def test_it_measures_what_the_other_nodes_measure(host: Host, checkpoint: dict[str, Any]) -> None:
    """Calibrate Thresholds measures one prompt at a time, with the same noises."""
    texts = [MEMORIZED, ORDINARY, "a red disc"]
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
    run(host, {**checkpoint, "m": counted}, batch=3, c=check(MEMORIZED))
    assert rows == 3 * 2 * (6 + 1)  # noises, the two of a pair, words and one
    assert without_prompt == 3  # other packs take what is in the negative's place for no prompt


def test_a_long_prompt_goes_in_parts(host: Host, checkpoint: dict[str, Any]) -> None:
    text = ", ".join([MEMORIZED, *[ORDINARY] * 30])  # more than 75 tokens, and fewer without some words
    out = run(host, checkpoint, batch=1, c=check(text), again=check(text))
    assert len(out["c"][3]) == 6 + 3 * 30 and out["c"] == out["again"]


def test_nothing_to_check(host: Host, checkpoint: dict[str, Any]) -> None:
    prompt = {"latent": on_lab.empty(1, 12), "c": check("  ")}
    assert "`text` is empty" in fails(host, prompt, checkpoint).message
    _, best, _, scores, said = run(host, checkpoint, batch=1, c=check("()", memorized_threshold=0.0))["c"]
    assert best == "()" and scores == [] and "no words that could be left out" in said
