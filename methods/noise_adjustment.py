"""The three ways to find an initial noise, run on a real model: by gradient, by a few evaluations, by search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..adapter.autograd.checkpointing import GRAPH, HALF, graph_memory
from ..adapter.errors import check_magnitude
from ..adapter.memory import explain_out_of_memory
from ..adapter.sampling import progress
from ..adapter.two_predictions import TwoPredictions, run_in_sampling_scope
from ..mitigation.noise.batch_wise import adjust_batchwise
from ..mitigation.noise.norm_constraint import Constraint
from ..mitigation.noise.per_sample import adjust_per_sample
from ..mitigation.noise.report import NoiseReport
from ..mitigation.noise.seed_search import search_noise
from ..mitigation.prediction import dimension

METHODS = ["per-sample", "batch-wise", "search"]
# Working memory with checkpoints over that of a sampling step, rounded up. `make bench-cost` on a UNet of SD1.5's
# size, bf16, 256×256: 158 MB over 101 MB, 1.56.
GRADIENT_HEADROOM = 2.0


# Called with a headline, d/√dim (B, rounds so far; the best so far where it counts) and the target in the same units.
OnRound = Callable[[str, Tensor, float | None], None]


@dataclass(frozen=True)
class NoisePlan:
    """The optimizer's inputs, in its own order; see the node for their meaning."""

    method: str
    target_magnitude: float
    relative: bool  # the target is d/√dim of an EPS model; otherwise absolute d of this model
    learning_rate: float
    weight_decay: float
    max_iterations: int
    adjustment_strength: float
    sharpness_radius: float
    adjustments: int
    candidates: int
    constraint: Constraint = "shell"
    checkpointing: str = "auto"

    @property
    def rounds(self) -> int:
        return {"per-sample": self.max_iterations + 1, "batch-wise": self.adjustments, "search": self.candidates}[
            self.method
        ]


def find_noise(
    plan: NoisePlan, *, draw: Callable[[int], Tensor], node: str, on_round: OnRound, **run
) -> tuple[Tensor, NoiseReport]:
    """x_T (B, ...) on the model's device and the report of how it was found.

    `draw(i)`: the i-th noise to begin with; `run`: what `run_in_sampling_scope` needs besides.
    """
    bar = progress(max(plan.rounds, 1))

    def body(pair: TwoPredictions, noise: Tensor) -> tuple[Tensor, NoiseReport]:
        unit = pair.eps_unit
        root = dimension(noise) ** 0.5
        target = plan.target_magnitude * (root * unit if plan.relative else 1.0)

        goal = None if plan.method == "batch-wise" else target / (root * unit)
        seen: list[Tensor] = []

        def on_step(i: int, d: Tensor) -> None:
            check_magnitude(d, node)
            if i == 0:  # of a second attempt, where the first ran out of memory
                seen.clear()
            bar.update_absolute(i + 1)
            seen.append(d.detach().cpu() / (root * unit))
            done = "" if goal is None else f", {int((seen[-1] <= goal).sum())} of {len(d)} done"
            headline = f"{plan.method} {i + 1}/{plan.rounds}: worst d/√dim {float(seen[-1].max()):.4f}{done}"
            on_round(headline, torch.stack(seen, dim=1), goal)

        noise, report = _adjust(plan, pair, noise, draw, target, on_step)
        return noise, replace(report, eps_unit=unit)

    start = draw(0)
    with explain_out_of_memory(node, _lower(plan)):
        return run_in_sampling_scope(
            body, noise=start, node=node, headroom=_headroom(plan, run["model"].model, start), **run
        )


def _lower(plan: NoisePlan) -> str:
    """What an artist can do when not even one picture at a time fits."""
    smaller = "a smaller batch or picture on `latent_image`"
    if plan.method != "per-sample":
        return f"Set {smaller}; fewer candidates or adjustments would not help."
    full = "" if plan.checkpointing in ("auto", "full") else "`checkpointing` to full or auto, "
    return f"Set {full}{smaller}, or `method` to batch-wise or search."


def _headroom(plan: NoisePlan, model, noise: Tensor) -> float:
    """How many sampling steps' memory the host should make free: a graph without checkpoints only when asked for."""
    if plan.method != "per-sample":
        return 1.0
    share = {"off": GRAPH, "on": HALF}.get(plan.checkpointing)
    if share is None:
        return GRADIENT_HEADROOM
    step = model.memory_required([2 * len(noise), *noise.shape[1:]])
    return max(GRADIENT_HEADROOM, graph_memory(model, len(noise), tuple(noise.shape), share) / step)


def _adjust(
    plan: NoisePlan, pair: TwoPredictions, noise: Tensor, draw, target: float, on_step
) -> tuple[Tensor, NoiseReport]:
    if plan.method == "batch-wise":
        return adjust_batchwise(
            noise,
            pair.prediction,
            strength=plan.adjustment_strength,
            radius=plan.sharpness_radius,
            adjustments=plan.adjustments,
            on_step=on_step,
        )
    if plan.method == "search":
        return search_noise(
            lambda i: draw(i).to(noise), pair.prediction, candidates=plan.candidates, target=target, on_step=on_step
        )

    def descend() -> tuple[Tensor, NoiseReport]:
        return adjust_per_sample(
            noise.clone(),
            pair.prediction,
            target=target,
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            max_iterations=plan.max_iterations,
            constraint=plan.constraint,
            in_parts=pair.in_parts,
            on_step=on_step,
        )

    if plan.max_iterations == 0:  # it only measures, and that needs no gradients
        return descend()
    return pair.with_gradients(descend, plan.checkpointing)
