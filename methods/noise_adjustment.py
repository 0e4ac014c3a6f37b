"""The three ways to find an initial noise, run on a real model: by gradient, by a few evaluations, by search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter.autograd.checkpointing import HALF_GRAPH, WHOLE_GRAPH, graph_memory
from ..adapter.errors import GuardError, check_magnitude
from ..adapter.long_work import progress
from ..adapter.memory import explain_out_of_memory
from ..adapter.sampling import SamplingInputs
from ..adapter.two_predictions import TwoPredictions, run_in_sampling_scope
from ..mitigation.noise.batch_wise import adjust_batchwise
from ..mitigation.noise.norm_constraint import Constraint
from ..mitigation.noise.per_sample import adjust_per_sample
from ..mitigation.noise.report import NoiseReport
from ..mitigation.noise.seed_search import search_noise
from ..mitigation.prediction import dimension, guidance_magnitude

if TYPE_CHECKING:
    from comfy.model_base import BaseModel

METHODS = ["per-sample", "batch-wise", "search"]
# Working memory with checkpoints over that of a sampling step, rounded up. `make bench-cost` on a UNet of SD1.5's
# size, bf16, 256×256: 158 MB over 101 MB, 1.56.
GRADIENT_HEADROOM = 2.0

# Called with a headline, d/√dim (B, rounds so far; best so far, except batch-wise), and the target in these units.
OnRound = Callable[[str, Tensor, float | None], None]
Result = tuple[Tensor, NoiseReport]  # x_T (B, ...) on the model's device, and how it was found


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
    memorized_threshold: float = 0.0  # d/√dim of an EPS model; a noise below it is left as it is
    constraint: Constraint = "shell"
    checkpointing: str = "auto"

    @property
    def rounds(self) -> int:
        return {"per-sample": self.max_iterations + 1, "batch-wise": self.adjustments, "search": self.candidates}[
            self.method
        ]


def find_noise(plan: NoisePlan, run: SamplingInputs, draw: Callable[[int], Tensor], on_round: OnRound) -> Result:
    """Adjust the noise of `run`, or search for a better one among `draw(i)`, of which the run's noise is the first."""
    bar = progress(max(plan.rounds, 1))

    def body(pair: TwoPredictions, noise: Tensor) -> Result:
        if not torch.equal(noise.float().cpu(), run.noise.float().cpu()):
            raise GuardError(
                f"{run.node}: a patch on `model` changes the noise before sampling, as context windows with FreeNoise "
                "do. It would also change the noise that is found here. Remove it, or turn its `freenoise` off."
            )
        unit = pair.eps_unit
        root = dimension(noise) ** 0.5
        target = plan.target_magnitude * (root * unit if plan.relative else 1.0)
        keep_below = plan.memorized_threshold * root * unit
        goal = None if plan.method == "batch-wise" else target / (root * unit)
        seen: list[Tensor] = []

        def on_step(i: int, d: Tensor) -> None:
            check_magnitude(d, run.node)
            if i == 0:  # after running out of memory the method starts again
                seen.clear()
            bar.update_absolute(i + 1)
            seen.append(d.detach().cpu() / (root * unit))
            finished = (seen[-1] <= goal) | (seen[0] < plan.memorized_threshold) if goal is not None else None
            done = "" if finished is None else f", {int(finished.sum())} of {len(d)} done"
            headline = f"{plan.method} {i + 1}/{plan.rounds}: worst d/√dim {float(seen[-1].max()):.4f}{done}"
            on_round(headline, torch.stack(seen, dim=1), goal)

        found, report = _adjust(plan, pair, noise, draw, target, keep_below, on_step)
        return found, replace(report, eps_unit=unit)

    with explain_out_of_memory(run.node, _what_to_lower(plan)):
        return run_in_sampling_scope(body, run, _headroom(plan, run.model.model, run.noise))


def _what_to_lower(plan: NoisePlan) -> str:
    """What the user can do when a single image at a time does not fit."""
    smaller = "a smaller batch or image on `latent_image`"
    if plan.method != "per-sample":
        return f"Set {smaller}; fewer candidates or adjustments would not help."
    full = "" if plan.checkpointing in ("auto", "full") else "`checkpointing` to full or auto, "
    return f"Set {full}{smaller}, or `method` to batch-wise or search."


def _headroom(plan: NoisePlan, model: BaseModel, noise: Tensor) -> float:
    """How many sampling steps' memory the host should free: for a whole graph only when the user asks for one."""
    if plan.method != "per-sample":
        return 1.0
    ratio = {"off": WHOLE_GRAPH, "on": HALF_GRAPH}.get(plan.checkpointing)
    if ratio is None:
        return GRADIENT_HEADROOM
    step = model.memory_required([2 * len(noise), *noise.shape[1:]])
    return max(GRADIENT_HEADROOM, graph_memory(model, noise.shape, ratio) / step)


def _adjust(
    plan: NoisePlan,
    pair: TwoPredictions,
    noise: Tensor,
    draw: Callable[[int], Tensor],
    target: float,
    keep_below: float,
    on_step: Callable[[int, Tensor], None],
) -> Result:
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
            lambda i: draw(i).to(noise),
            lambda _, x, rows: guidance_magnitude(pair.prediction(x, rows)),
            candidates=plan.candidates,
            target=target,
            keep_below=keep_below,
            on_step=on_step,
        )

    def descend() -> Result:
        return adjust_per_sample(
            noise.clone(),
            pair.prediction,
            target=target,
            keep_below=keep_below,
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            max_iterations=plan.max_iterations,
            constraint=plan.constraint,
            in_parts=pair.in_parts,
            on_step=on_step,
        )

    if plan.max_iterations == 0:  # it only measures, which needs no gradients
        return descend()
    return pair.with_gradients(descend, plan.checkpointing)
