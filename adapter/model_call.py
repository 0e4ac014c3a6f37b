"""The host's guidance on predictions that are already there, with every patch that other packs hung into it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from .batch_rows import can_drop_rows, rows_of
from .memory import BatchParts


def branches(model, conds: list, x: Tensor, sigma: Tensor, model_options: dict) -> list[Tensor]:
    """The denoised predictions under each of `conds`, asked as the host's sampling function would ask."""
    other = model_options.get("sampler_calc_cond_batch_function")
    if other is not None:
        args = {"conds": conds, "input": x, "sigma": sigma, "model": model, "model_options": model_options}
        return list(other(args))
    return list(comfy.samplers.calc_cond_batch(model, conds, x, sigma, model_options))


@dataclass
class PartwiseCall:
    """A run's evaluations of its own, as many rows at once as fit: half of the samples, at last half of the conditions.

    What the host samples with is the host's to ask for, and to fail at.
    """

    samples: BatchParts = field(default_factory=BatchParts)
    conditions: BatchParts = field(default_factory=BatchParts)

    def branches(self, model, conds: list, x: Tensor, sigma: Tensor, model_options: dict) -> list[Tensor]:
        """As `branches`."""
        named, batch = {str(i): cond for i, cond in enumerate(conds)}, len(x)
        least = 1 if can_drop_rows(named) else batch

        def ask(rows: slice) -> list[Tensor]:
            size = rows.stop - rows.start
            mine = conds if size == batch else list(rows_of(named, torch.arange(batch)[rows], batch).values())
            if size > least:
                return branches(model, mine, x[rows], sigma[rows], model_options)
            found = self.conditions.run(
                lambda some: branches(model, mine[some], x[rows], sigma[rows], model_options), len(mine)
            )
            return [prediction for part in found for prediction in part]

        found = self.samples.run(ask, batch, least)
        return found[0] if len(found) == 1 else [torch.cat(parts) for parts in zip(*found, strict=True)]


@dataclass(frozen=True)
class CFGEvaluation:
    """One evaluation of a running guider, from which guidance can be asked at several scales."""

    executor: Any  # the rest of the host's PREDICT_NOISE chain
    guider: Any
    x: Tensor
    sigma: Tensor
    options: dict
    seed: int | None

    def must_be_apart(self, inside_scale: float) -> bool:
        """Whether samples inside and outside need a call each, because a patch would notice that they share one.

        A post-CFG function may ask the model about the prompt again, and no prompt fits both groups. CFG
        functions and pre-CFG functions see the predictions alone; some keep a running mean, so one call is
        better for them as long as both groups are honest pairs of predictions, that is at the scales 0 and 1.
        """
        others = ("sampler_cfg_function", "sampler_pre_cfg_function")
        return bool(self.options.get("sampler_post_cfg_function")) or (
            inside_scale not in (0.0, 1.0) and any(self.options.get(k) for k in others)
        )

    def at(self, cfg: float, cond: Tensor, uncond: Tensor, conds: dict | None = None) -> Tensor:
        """What the host makes of the pair at scale `cfg`; `conds`: prompts that patches see instead of the run's.

        At scale 1 the host asks for no second prediction and guides against zero, which is other bits.
        """
        alone = math.isclose(cfg, 1.0) and not self.options.get("disable_cfg1_optimization", False)
        pair = [cond, torch.zeros_like(uncond) if alone else uncond]
        options = {
            **self.options,
            "disable_cfg1_optimization": not alone,
            "sampler_calc_cond_batch_function": lambda args: pair,
        }
        kept = self.guider.cfg, self.guider.conds
        try:
            self.guider.cfg, self.guider.conds = cfg, {**self.guider.conds, **(conds or {})}
            return self.executor(self.x, self.sigma, options, self.seed)
        finally:
            self.guider.cfg, self.guider.conds = kept
