"""The figures of docs/why.md: the basin of the exact model and of the small lab, and what each method does to it.

.host/python -m benchmarks.why
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

from support.graphs import Words, checkpoint, from_images, node, references
from support.in_process import lab_host
from support.paths import LAB_NAME, ROOT
from support.small_lab import is_copy, training_pairs

from .cost.measurements import MEASURE_ALL
from .cost.subjects import LINKS, Subject, exact_model, lab_checkpoint

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from support.executor import Host, Prompt

OUT = ROOT / "docs" / "img"
STEPS, BATCH = 50, 24
WORDS = Words(LINKS)  # nodes on the subject


def watched(subject: Subject, exact: Any) -> tuple[Subject, list[Tensor]]:
    """The exact model that records its true log-odds L at every call."""
    odds: list[Tensor] = []
    model = subject.model.clone()

    def wrapper(apply_model: Callable, call: dict[str, Any]) -> Tensor:
        x, sigma = (call[name].chunk(len(call["cond_or_uncond"]))[0] for name in ("input", "timestep"))
        odds.append(exact.log_odds(model, x, sigma).cpu())
        return apply_model(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(wrapper)
    return replace(subject, model=model), odds


def panel(axes: Any, lines: Iterable, copies: Iterable[bool], title: str) -> None:
    """One line a sample: red ends as a copy."""
    held = list(copies)
    for line, copy in zip(lines, held, strict=True):
        axes.plot(line, color="C3" if copy else "C0", linewidth=0.8, alpha=0.7)
    axes.set_title(f"{title}\n{sum(held)} of {len(held)} copies", fontsize=9)
    axes.set_xlabel("step")


def on_the_exact_model(host: Host) -> None:
    exact, subject = host.module(LAB_NAME, "exact"), exact_model(host)
    noise = WORDS.optimizer(target_magnitude=0.007)
    cases: dict[str, Prompt] = {
        "KSampler, CFG 7": {"k": WORDS.deferred("dynamic", pre_escape_cfg=7.0, **MEASURE_ALL)},
        "without CFG": {"k": WORDS.deferred("dynamic", **MEASURE_ALL)},
        "static, from 40 %": {"k": WORDS.deferred("static", start_percent=0.4)},
        "dynamic (the default)": {"k": WORDS.deferred("dynamic")},
        "per-sample noise": {"opt": noise, "k": WORDS.deferred("off", noise=["opt", 0])},
        "AMG Guidance": {"refs": references(), "g": WORDS.amg(), "k": WORDS.ksampler(model=["g", 0])},
    }
    basin, grid = plt.subplots(2, 3, figsize=(11, 6), sharey=True, layout="constrained")
    magnitude, curve = plt.subplots(figsize=(7, 4), layout="constrained")
    works = {"works": {"samples": exact.x_mem().view(1, *exact.SHAPE)}}
    for axes, (title, prompt) in zip(grid.flat, cases.items(), strict=True):
        seen, odds = watched(subject, exact)
        latent, *told = host.run(prompt, {**seen.given(seen.latent(BATCH)), **works})["k"]
        panel(axes, torch.stack(odds[-STEPS:]).T, exact.is_copy(latent).tolist(), title)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=10)
        if title in ("KSampler, CFG 7", "without CFG"):
            curve.plot(told[0].relative.nanmedian(dim=0).values, label=f"{title}: median d/√dim")
    for axes in grid[:, 0]:
        axes.set_ylabel("log-odds L of the basin")
    basin.savefig(OUT / "why-log-odds.png", dpi=100)
    curve.set(xlabel="step", ylabel="guidance magnitude d/√dim")
    curve.legend(fontsize=8)
    magnitude.savefig(OUT / "why-magnitude.png", dpi=100)


def on_the_lab_checkpoint(host: Host) -> None:
    """Closeness of the prediction to the nearest training image over the steps, one prompt, 8 noises."""
    subject, vae = lab_checkpoint(host), checkpoint.load(host)["vae"]
    works = [image for _, image in training_pairs()]
    images = {"i": torch.from_numpy(np.stack(works)).float() / 255, "vae": vae}
    guided = Words({**LINKS, "model": ["g", 0]})
    looks = {"threshold_min": 1.0, "threshold_max": 1.0, "threshold_schedule": "constant"}  # and never acts
    noise = WORDS.optimizer(**{**subject.optimizer, "target_magnitude": 0.015})
    cases: dict[str, tuple[dict[str, Any], Prompt]] = {
        "KSampler, CFG 7": (looks, {"k": guided.ksampler()}),
        "dynamic (the default)": (looks, {"k": guided.deferred("dynamic")}),
        "per-sample noise": (looks, {"opt": noise, "k": guided.deferred("off", noise=["opt", 0])}),
        "AMG Guidance": ({}, {"k": guided.ksampler()}),
    }
    figure, grid = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True, layout="constrained")
    for axes, (title, (limits, nodes)) in zip(grid, cases.items(), strict=True):
        ends = {"g": WORDS.amg(**limits), "out": node("VAEDecode", samples=["k", 0], vae=["vae", 0])}
        out = host.run({"refs": from_images(), **nodes, **ends}, {**subject.given(subject.latent(8)), **images})["out"]
        copies = [any(is_copy(p, w) for w in works) for p in (out[0] * 255).round().byte().numpy()]
        panel(axes, np.array(host.views("g")[-1]["series"][0]["lines"], float), copies, title)
    grid[0].set_ylabel("closeness to the nearest\ntraining image")
    figure.savefig(OUT / "why-lab.png", dpi=100)


def main() -> None:
    logging.disable(logging.WARNING)
    OUT.mkdir(exist_ok=True)
    with lab_host("--cpu --use-pytorch-cross-attention") as host:
        on_the_exact_model(host)
        on_the_lab_checkpoint(host)


if __name__ == "__main__":
    main()
