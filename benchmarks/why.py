"""The figures of docs/why.md: the basin of the exact model and of the lab checkpoint, and what each method does to it.

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

from support.graphs import Words, node, references
from support.in_process import lab_host
from support.paths import LAB_NAME, PACK, ROOT

from .cost.subjects import LINKS, Subject, exact_model, lab_checkpoint

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from support.executor import Host, Prompt

OUT = ROOT / "docs" / "img"
STEPS, BATCH = 50, 24
WORDS = Words(LINKS)  # nodes on the subject


def watched(subject: Subject, exact: Any) -> tuple[Subject, list[Tensor], list[Tensor]]:
    """The exact model that records its true log-odds L and d/√dim at every call."""
    odds: list[Tensor] = []
    magnitudes: list[Tensor] = []
    model = subject.model.clone()

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

    model.set_model_unet_function_wrapper(wrapper)
    return replace(subject, model=model), odds, magnitudes


def sampled(subject: Subject, prompt: Prompt, batch: int, **given: Any) -> Any:
    """The latent of node `k` of a prompt whose links lead to the subject."""
    return subject.host.run(prompt, {**subject.given(subject.latent(batch)), **given})["k"][0]


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
        "KSampler, CFG 7": {"k": WORDS.ksampler()},
        "without CFG": {"k": WORDS.ksampler(cfg=0.0)},
        "static, from 40 %": {"k": WORDS.deferred("static", start_percent=0.4)},
        "dynamic (the default)": {"k": WORDS.deferred("dynamic")},
        "per-sample noise": {"opt": noise, "k": WORDS.deferred("off", noise=["opt", 0])},
        "AMG Guidance": {"refs": references(), "g": WORDS.amg(), "k": WORDS.ksampler(model=["g", 0])},
    }
    basin, grid = plt.subplots(2, 3, figsize=(11, 6), sharey=True, layout="constrained")
    magnitude, curve = plt.subplots(figsize=(7, 4), layout="constrained")
    for axes, (title, prompt) in zip(grid.flat, cases.items(), strict=True):
        seen, odds, magnitudes = watched(subject, exact)
        out = sampled(seen, prompt, BATCH, works={"samples": exact.x_mem().view(1, *exact.SHAPE)})
        panel(axes, torch.stack(odds[-STEPS:]).T, exact.is_copy(out).tolist(), title)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=10)
        if title in ("KSampler, CFG 7", "without CFG"):
            curve.plot(torch.stack(magnitudes[-STEPS:]).nanmedian(dim=1).values, label=f"{title}: median d/√dim")
    for axes in grid[:, 0]:
        axes.set_ylabel("log-odds L of the basin")
    basin.savefig(OUT / "why-log-odds.png", dpi=100)
    curve.set(xlabel="step", ylabel="guidance magnitude d/√dim")
    curve.legend(fontsize=8)
    magnitude.savefig(OUT / "why-magnitude.png", dpi=100)


def on_the_lab_checkpoint(host: Host) -> None:
    """Closeness of the prediction to the nearest training image over the steps, one prompt, 8 noises."""
    from lab.copies import COPY_RMSE, rmse, training_pairs

    subject, works = lab_checkpoint(host), [image for _, image in training_pairs()]
    strengths, threshold = (host.module(PACK, f"mitigation.amg.{n}") for n in ("guidance", "threshold"))
    plans, patch = (host.module(PACK, f"methods.amg.{n}") for n in ("plan", "patch"))
    images = {"w": torch.from_numpy(np.stack(works)).float() / 255, "v": subject.vae}
    made = node("MG_ReferencesFromImages", images=["w", 0], captions="", metric="latent", vae=["v", 0])
    references = host.run({"r": made}, images)["r"][0]
    never = threshold.Threshold(1.0, 1.0, "constant")  # never close enough to act, so AMG only looks
    looking = strengths.GuidanceStrengths(1.0, 0.0, 0.0, never, "ramp")
    default = threshold.Threshold(0.5, 0.6, "parabolic")
    acting = strengths.GuidanceStrengths(13.0, 0.0, 10.0, default, "ramp")
    noise = WORDS.optimizer(**{**subject.optimizer, "target_magnitude": 0.015})
    cases: dict[str, tuple[Any, Prompt]] = {
        "KSampler, CFG 7": (looking, {"k": WORDS.ksampler()}),
        "dynamic (the default)": (looking, {"k": WORDS.deferred("dynamic")}),
        "per-sample noise": (looking, {"opt": noise, "k": WORDS.deferred("off", noise=["opt", 0])}),
        "AMG Guidance": (acting, {"k": WORDS.ksampler()}),
    }
    figure, grid = plt.subplots(1, 4, figsize=(12, 3.2), sharey=True, layout="constrained")
    for axes, (title, (guidance, prompt)) in zip(grid, cases.items(), strict=True):
        ended: list[Any] = []
        plan = plans.AMGPlan(references, guidance, on_end=ended.append)
        out = sampled(replace(subject, model=patch.add_amg(subject.model, plan)), prompt, 8)
        with torch.inference_mode():
            pixels = (subject.vae.decode(out["samples"]) * 255).round().byte().numpy()
        copies = [min(rmse(p, w) for w in works) < COPY_RMSE for p in pixels]
        panel(axes, ended[-1].closeness.tolist(), copies, title)
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
