"""Every evaluation of the model: those the sampler asks for, and those that are ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
import torch
from comfy.model_base import BaseModel
from comfy.samplers import CFGGuider
from torch import Tensor

from .batch_rows import Conds, can_drop_rows, rows_of
from .memory import BatchParts

Options = dict[str, Any]  # the host's model_options
HOOKS = [f"sampler_{name}_function" for name in ("cfg", "pre_cfg", "post_cfg", "calc_cond_batch")]


def denoised_predictions(model: BaseModel, conds: list, x: Tensor, sigma: Tensor, options: Options) -> list[Tensor]:
    """The denoised predictions (B, ...) under each of `conds`, evaluated as the host's sampling function does."""
    other = options.get("sampler_calc_cond_batch_function")
    if other is not None:
        args = {"conds": conds, "input": x, "sigma": sigma, "model": model, "model_options": options}
        return list(other(args))
    return list(comfy.samplers.calc_cond_batch(model, conds, x, sigma, options))


@dataclass
class PartwiseCall:
    """An evaluation that plain sampling would not make, split by samples, then by conditions when memory runs out."""

    samples: BatchParts = field(default_factory=BatchParts)
    conditions: BatchParts = field(default_factory=BatchParts)

    def predictions(self, model: BaseModel, conds: list, x: Tensor, sigma: Tensor, options: Options) -> list[Tensor]:
        """The same as `denoised_predictions`."""
        named, batch = {str(i): cond for i, cond in enumerate(conds)}, len(x)
        least = 1 if can_drop_rows(named) else batch

        def ask(rows: slice) -> list[Tensor]:
            size = rows.stop - rows.start
            mine = conds if size == batch else list(rows_of(named, torch.arange(batch)[rows], batch).values())

            def ask_for(some: slice) -> list[Tensor]:
                return denoised_predictions(model, mine[some], x[rows], sigma[rows], options)

            if size > least:
                return ask_for(slice(None))
            return [prediction for part in self.conditions.run(ask_for, len(mine)) for prediction in part]

        parts = self.samples.run(ask, batch, least)
        return parts[0] if len(parts) == 1 else [torch.cat(rows) for rows in zip(*parts, strict=True)]


@dataclass(frozen=True)
class SamplerCall:
    """One evaluation that the sampler asks for, inside the host's chain of PREDICT_NOISE wrappers."""

    executor: Any  # the rest of the chain
    x: Tensor  # (B, ...)
    sigma: Tensor  # (B,)
    options: Options
    seed: int | None

    @property
    def guider(self) -> CFGGuider:
        return self.executor.class_obj

    @property
    def level(self) -> float:
        """The noise level σ of the batch."""
        return float(self.sigma.flatten()[0])

    @property
    def has_other_guidance(self) -> bool:
        """Whether the guider combines the predictions in its own way, or has nothing to guide against."""
        conds = self.guider.conds
        custom = type(self.guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise
        return custom or conds.get("positive") is None or conds.get("negative") is None or self.guider.cfg == 0

    @property
    def smallest_part(self) -> int:
        """How many samples must be evaluated together: all, if another patch may keep data for each row."""
        others = self.executor.wrappers[self.executor.idx + 1 :] or [k for k in HOOKS if self.options.get(k)]
        return 1 if not others and can_drop_rows(self.guider.conds) else len(self.x)

    def predict(self, options: Options | None = None) -> Tensor:
        """The denoised prediction (B, ...) of everything below this wrapper."""
        return self.executor(self.x, self.sigma, self.options if options is None else options, self.seed)

    def needs_separate_guidance(self, inside_scale: float) -> bool:
        """Whether samples inside and outside the basin need a guidance call each.

        A post-CFG function may evaluate the model again under the prompt, and no prompt fits both groups. CFG and
        pre-CFG functions only see the predictions, and some keep a running mean. For them one call is better, as long
        as both groups hold real pairs of predictions, which they do at the scales 0 and 1.
        """
        others = ("sampler_cfg_function", "sampler_pre_cfg_function")
        return bool(self.options.get("sampler_post_cfg_function")) or (
            inside_scale not in (0.0, 1.0) and any(self.options.get(k) for k in others)
        )

    def guided(self, cfg: float, cond: Tensor, uncond: Tensor, conds: Conds | None = None) -> Tensor:
        """The guided prediction of the host and all patches for this pair at scale `cfg`.

        `conds` replaces the run's prompts of the same names, for patches that evaluate the model themselves.
        """
        # At scale 1 the host evaluates no second prediction and guides against zero, which gives other bits.
        alone = math.isclose(cfg, 1.0) and not self.options.get("disable_cfg1_optimization", False)
        pair = [cond, torch.zeros_like(uncond) if alone else uncond]
        options = {**self.options, "disable_cfg1_optimization": not alone}
        options["sampler_calc_cond_batch_function"] = lambda args: pair
        kept = self.guider.cfg, self.guider.conds
        try:
            self.guider.cfg, self.guider.conds = cfg, {**self.guider.conds, **(conds or {})}
            return self.predict(options)
        finally:
            self.guider.cfg, self.guider.conds = kept
