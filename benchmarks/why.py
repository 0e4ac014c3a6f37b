"""The figures of docs/why.md: the basin of the exact model, what each method does to it, and the noises of the lab.

.host/python -m benchmarks.why
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lab import copies
from support import small_lab
from support.graphs import Words, references
from support.graphs.words import Host, Prompt
from support.in_process import lab_host
from support.paths import LAB_CHECKPOINT, LAB_NAME, ROOT, SMALL_CHECKPOINT

from .cases import MEMORIZED, ORDINARY, Case
from .checkpoint import Batch, Checkpoint
from .cost.measurements import LINKS, MEASURE_ALL, Subject, exact_model
from .lab.configuration import GROUPS, PLAN, SMALL_PLAN, TOGETHER
from .lab.methods import TARGET
from .methods import Method, deferred
from .sampling import images_together, prompts_together

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUT = ROOT / "docs" / "img"
STEPS, BATCH = 50, 24
PROMPT, NOISES, ORDINARIES = "Copper Lantern", 48, 12
ACROSS, TILE, SHOWN = 8, 112, 20  # images in a row, pixels, steps in the picture
SMALL_TARGET = 0.015  # what ordinary prompts show on the small lab
WORDS = Words(LINKS)  # nodes on the subject
AS_KSAMPLER = {"pre_escape_cfg": PLAN.cfg, **MEASURE_ALL}  # guided alike inside and outside, and measured
MEASURED = Method("KSampler", "measured", deferred("dynamic", **AS_KSAMPLER))


def watched(subject: Subject, exact: Any) -> tuple[Subject, list[Tensor]]:
    odds: list[Tensor] = []
    model = subject.model.clone()

    def wrapper(apply_model: Callable, call: dict[str, Any]) -> Tensor:
        x, sigma = (call[name].chunk(len(call["cond_or_uncond"]))[0] for name in ("input", "timestep"))
        odds.append(exact.log_odds(model, x, sigma).cpu())
        return apply_model(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(wrapper)
    return replace(subject, model=model), odds


def on_the_exact_model(host: Host) -> None:
    exact, subject = host.module(LAB_NAME, "exact"), exact_model(host)
    noise = WORDS.optimizer(target_magnitude=0.007)
    cases: dict[str, Prompt] = {
        "KSampler, CFG 7": {"k": WORDS.deferred("dynamic", **AS_KSAMPLER)},
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
        copied = exact.is_copy(latent).tolist()
        for line, copy in zip(torch.stack(odds[-STEPS:]).T, copied, strict=True):
            axes.plot(line, color="C3" if copy else "C0", linewidth=0.8, alpha=0.7)
        axes.set_title(f"{title}\n{sum(copied)} of {len(copied)} copies", fontsize=9)
        axes.set(xlabel="step")
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


def run(checkpoint: Checkpoint, method: Method, batch: Batch) -> dict[str, list[Any]]:
    texts = {"positive": checkpoint.encode([c.text for c in batch.cases]), "negative": checkpoint.encode([""])}
    return checkpoint.host.run(checkpoint.graph(method, batch), {**checkpoint.given, **texts})


def sampled(checkpoint: Checkpoint, batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """KSampler's images (n, H, W, 3) uint8 and d/√dim (n, steps)."""
    found = [run(checkpoint, MEASURED, batch)["sampler"] for batch in batches]
    curves = [curve.relative.cpu().numpy() for _, curve, _ in found]
    return np.concatenate([checkpoint.decode(latent) for latent, *_ in found]), np.concatenate(curves)


def noises_of_one_prompt(checkpoint: Checkpoint, works: np.ndarray) -> None:
    case = next(c for c in GROUPS[MEMORIZED] if c.text.startswith(PROMPT))
    images, curves = sampled(checkpoint, images_together([case], NOISES, TOGETHER, 0))
    _, ordinary = sampled(checkpoint, prompts_together([GROUPS[ORDINARY][:ORDINARIES]], [1], TOGETHER))
    copied = (copies.distances(images, works).min(1).values < copies.COPY_RMSE).numpy()
    print(f"{case.text}: {copied.sum()} of {NOISES} noises copy")
    sheet = Image.new("RGB", (ACROSS * TILE, NOISES // ACROSS * TILE), "white")
    for place, i in enumerate(curves[:, 0].argsort()):
        tile = Image.fromarray(images[i]).resize((TILE - 8, TILE - 8), Image.Resampling.LANCZOS)
        framed = ImageOps.expand(tile, 4, (214, 39, 40) if copied[i] else (255, 255, 255))
        sheet.paste(framed, (place % ACROSS * TILE, place // ACROSS * TILE))
    sheet.save(OUT / "why-noises.jpg", quality=85)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for lines, color, label in (
        (ordinary, "0.7", f"{ORDINARIES} ordinary prompts"),
        (curves[~copied], "C0", f"{PROMPT}: no copy"),
        (curves[copied], "C3", f"{PROMPT}: copy"),
    ):
        for k, line in enumerate(lines[:, :SHOWN]):
            axes.plot(line, color=color, linewidth=0.8, alpha=0.8, label="" if k else label)
    axes.set(xlabel="step of KSampler, CFG 7", ylabel="guidance magnitude d/√dim", ylim=0)
    axes.legend(fontsize=8)
    figure.savefig(OUT / "why-curves.png", dpi=100)


def what_the_optimizer_changes(checkpoints: Iterable[tuple[str, Checkpoint, Case, float]]) -> None:
    figure, grid = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
    for row, (name, checkpoint, case, target) in zip(grid, checkpoints, strict=True):
        noise = {"target_magnitude": target, "constraint": "free", "learning_rate": 0.03}
        method = Method("noise", "", {"noise": noise})
        batch = images_together([case], 1, 1, 0)[0]
        out = run(checkpoint, method, batch)
        report, after = out["noise"][1], out["noise"][0].noise[0]
        before = torch.randn((1, *after.shape), generator=torch.Generator().manual_seed(batch.seed))[0]
        d = [float(report.relative(one)[0]) for one in (report.before, report.after)]
        told = f"std {report.std[0]:.3f}, d/√dim {d[0]:.4f} → {d[1]:.4f}"
        print(f"{name}: {told}, moved {report.moved[0]:.3f}, {report.iterations[0]} iterations")
        titles = (f"{name}: the seed's noise", told, "difference")
        for axes, noise, title in zip(row, (before, after, after - before), titles, strict=True):
            axes.imshow(noise[0], cmap="gray", vmin=-3, vmax=3)
            axes.set_title(title, fontsize=8)
            axes.axis("off")
    figure.savefig(OUT / "why-difference.png", dpi=110)


def main() -> None:
    logging.disable(logging.WARNING)
    OUT.mkdir(exist_ok=True)
    with lab_host("--cpu --use-pytorch-cross-attention", threads=torch.get_num_threads()) as host:
        on_the_exact_model(host)
        lab = Checkpoint(host, LAB_CHECKPOINT, PLAN)
        noises_of_one_prompt(lab, np.stack([image for _, image in copies.training_pairs()]))
        small = Checkpoint(host, SMALL_CHECKPOINT, SMALL_PLAN)
        own = Case(0, small_lab.training_pairs()[0][0])
        case = next(c for c in GROUPS[MEMORIZED] if c.text.startswith(PROMPT))
        what_the_optimizer_changes([("16,384 numbers", lab, case, TARGET), ("576 numbers", small, own, SMALL_TARGET)])


if __name__ == "__main__":
    main()
