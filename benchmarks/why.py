"""The figures of docs/why.md: the basin as it is on the exact model, and what each method does to it.

.host/python benchmarks/why.py
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import matplotlib
import torch

from support.paths import ROOT

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from torch import Tensor

from benchmarks.bench_host import LAB, PACK, host

OUT = ROOT / "docs" / "img"
STEPS, BATCH, CFG = 50, 24, 7.0


def watched(made: Any, model: Any, exact: Any) -> tuple[Any, list[Tensor], list[Tensor]]:
    """A clone of the model that notes the true log-odds L and d/√dim at every paired evaluation."""
    odds: list[Tensor] = []
    magnitudes: list[Tensor] = []
    seen = model.clone()

    def wrapper(apply_model: Callable, call: dict[str, Any]) -> Tensor:
        out = apply_model(call["input"], call["timestep"], **call["c"])
        kinds = call["cond_or_uncond"]
        x, sigma = call["input"].chunk(len(kinds))[0], call["timestep"].chunk(len(kinds))[0]
        odds.append(exact.log_odds(model, x, sigma).cpu())
        if len(kinds) == 2:
            parts = dict(zip(kinds, out.chunk(2), strict=True))
            eps = (parts[1] - parts[0]) / sigma.view(-1, 1, 1, 1)
            magnitudes.append(eps.flatten(1).norm(dim=1).cpu() / exact.DIM**0.5)
        else:
            magnitudes.append(torch.full((len(x),), torch.nan))
        return out

    seen.set_model_unet_function_wrapper(wrapper)
    return seen, odds, magnitudes


def panel(axes: Any, odds: Tensor, copies: Tensor, title: str) -> None:
    """One line a sample: red ends as a copy."""
    for line, copy in zip(odds.T, copies.tolist(), strict=True):
        axes.plot(line, color="C3" if copy else "C0", linewidth=0.8, alpha=0.7)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_title(f"{title}\n{int(copies.sum())} of {len(copies)} copies", fontsize=9)
    axes.set_xlabel("step")


def on_the_lab_checkpoint(made: Any) -> None:
    """Closeness of the prediction to the nearest training picture over the steps, one prompt, 8 noises."""
    import numpy as np

    from benchmarks.bench_runs import lab_checkpoint
    from lab.copies import COPY_RMSE, rmse, training_pairs
    from support.graphs import deferred, ksampler, optimizer

    subject, pairs = lab_checkpoint(made), training_pairs()
    maths, plans, patch = (
        made.module(PACK, n) for n in ("mitigation.amg.guidance", "methods.amg.plan", "methods.amg.patch")
    )
    threshold = made.module(PACK, "mitigation.amg.threshold").Threshold
    vae = made.run({"c": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "lab.safetensors"}}})["c"][2]
    works = torch.from_numpy(np.stack([picture for _, picture in pairs])).float() / 255
    inputs = {"images": ["w", 0], "captions": "", "metric": "latent", "vae": ["v", 0]}
    nodes = {"r": {"class_type": "MG_ReferencesFromImages", "inputs": inputs}}
    references = made.run(nodes, {"w": works, "v": vae})["r"][0]
    looking = maths.GuidanceStrengths(
        1.0, 0.0, 0.0, threshold(1.0, 1.0, "constant"), "ramp"
    )  # never close enough to act
    acting = maths.GuidanceStrengths(13.0, 0.0, 10.0, threshold(0.5, 0.6, "parabolic"), "ramp")
    noise = {**subject.optimizer, "target_magnitude": 0.015}
    cases = {
        "KSampler, CFG 7": (looking, {"k": ksampler()}),
        "dynamic (the default)": (looking, {"k": deferred("dynamic")}),
        "per-sample noise": (looking, {"n": optimizer(**noise), "k": deferred("off", noise=["n", 0])}),
        "AMG Guidance": (acting, {"k": ksampler()}),
    }
    figure, grid = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True, layout="constrained")
    for axes, (title, (guidance, prompt)) in zip(grid, cases.items(), strict=True):
        ended: list[Any] = []
        model = patch.add_amg(subject.model, plans.AMGPlan(references, guidance, on_end=ended.append))
        given = {"m": model, "p": subject.positive, "e": subject.negative, "l": subject.latent(8)}
        links = {"model": ["m", 0], "positive": ["p", 0], "negative": ["e", 0], "latent_image": ["l", 0]}
        prompt = {k: {**n, "inputs": {**n["inputs"], **links}} for k, n in prompt.items()}
        out = made.run(prompt, given)["k"][0]
        with torch.inference_mode():
            pictures = (vae.decode(out["samples"]) * 255).round().byte().numpy()
        copies = [min(rmse(p, w) for _, w in pairs) < COPY_RMSE for p in pictures]
        for line, copy in zip(ended[-1].closeness.tolist(), copies, strict=True):
            axes.plot(line, color="C3" if copy else "C0", linewidth=0.9, alpha=0.8)
        axes.set_title(f"{title}\n{sum(copies)} of {len(copies)} copies", fontsize=9)
        axes.set_xlabel("step")
    grid[0].set_ylabel("closeness to the nearest\ntraining picture")
    figure.savefig(OUT / "why-lab.png", dpi=100)


def main() -> None:
    from support.graphs import amg, deferred, ksampler, lab, optimizer, references

    logging.disable(logging.WARNING)
    OUT.mkdir(exist_ok=True)
    with host() as made:
        import comfy.utils

        comfy.utils.PROGRESS_BAR_ENABLED = False
        exact = made.module(LAB, "exact")
        plain = exact.build()
        cases: dict[str, dict[str, Any]] = {
            "KSampler, CFG 7": {"k": ksampler()},
            "without CFG": {"k": ksampler(cfg=0.0)},
            "static, from 40 %": {"k": deferred("static", start_percent=0.4)},
            "dynamic (the default)": {"k": deferred("dynamic")},
            "per-sample noise": {"n": optimizer(target_magnitude=0.007), "k": deferred("off", noise=["n", 0])},
            "AMG Guidance": {"refs": references(), "g": amg(model=["m", 0]), "k": ksampler(model=["g", 0])},
        }
        figure, grid = plt.subplots(2, 3, figsize=(11, 6), sharey=True, layout="constrained")
        first, second = plt.subplots(figsize=(7, 4), layout="constrained")
        works = {"samples": exact.x_mem()[None] if exact.x_mem().ndim == 3 else exact.x_mem()}
        for axes, (title, nodes) in zip(grid.flat, cases.items(), strict=True):
            model, odds, magnitudes = watched(made, plain, exact)
            for node in nodes.values():
                if node["inputs"].get("model") == ["lab", 0]:
                    node["inputs"]["model"] = ["m", 0]
            out = made.run({"lab": lab(BATCH), **nodes}, {"m": model, "works": works})["k"][0]
            kept = torch.stack(odds[-STEPS:])
            panel(axes, kept, exact.is_copy(out), title)
            if title in ("KSampler, CFG 7", "without CFG"):
                second.plot(torch.stack(magnitudes[-STEPS:]).nanmedian(dim=1).values, label=f"{title}: median d/√dim")
        grid[0, 0].set_ylabel("log-odds L of the basin")
        grid[1, 0].set_ylabel("log-odds L of the basin")
        figure.savefig(OUT / "why-log-odds.png", dpi=100)
        second.set(xlabel="step", ylabel="guidance magnitude d/√dim")
        second.legend(fontsize=8)
        first.savefig(OUT / "why-magnitude.png", dpi=100)
        on_the_lab_checkpoint(made)


if __name__ == "__main__":
    main()
