"""Every evaluation of the model: those the sampler asks for, and those that are ours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.samplers
import torch
from comfy.model_base import BaseModel
from comfy.samplers import CFGGuider
from torch import Tensor

from ..mitigation.batch import broadcast
from .batch_rows import Conds, can_drop_rows, rows_of
from .errors import GuardError
from .memory import BatchParts
from .step_caches import Options, past_step_caches, without_step_caches

CALC_COND_BATCH = "sampler_calc_cond_batch_function"  # the host's option that answers in the model's place
HOOKS = [f"sampler_{name}_function" for name in ("cfg", "pre_cfg", "post_cfg", "calc_cond_batch")]


Pair = tuple[Tensor, Tensor]  # denoised predictions (B, ...) under a prompt and under a negative prompt
Prompt = list[dict] | None  # a processed condition; None: not evaluated, and its prediction is zero
CFG_OF_ONE = "a cfg of 1"  # what leaves no guidance


def other_sampling_function() -> str:
    """The pack that has replaced the host's sampling function by one that is deaf to `SamplerCall.guided`, or "".

    AnimateDiff-Evolved does so for a run: its function prepares what its evaluations need, and asks nobody for them.
    """
    function = comfy.samplers.sampling_function
    module = str(getattr(function, "__module__", ""))
    listens = CALC_COND_BATCH in getattr(getattr(function, "__code__", None), "co_consts", ())
    return "" if module == comfy.samplers.__name__ or listens else re.split(r"[\\/]", module)[-1].split(".")[0]


def guides_itself(guider: Any) -> bool:
    """Whether this is another pack's guider, which combines the predictions in its own way."""
    return type(guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise


def denoised_predictions(
    model: BaseModel, prompt: Prompt, negative: Prompt, x: Tensor, sigma: Tensor, options: Options
) -> Pair:
    """The one way in which this pack evaluates a model, in the shape in which the host's sampling function does it.

    Adapters, skip-layer guidance and step caches of other packs tell the rows of a batch by these two places: they
    fail, or answer for the wrong prompt, in a call of one entry or of three, or with a prompt in the other's place.
    """
    pack = other_sampling_function()
    if pack:
        raise GuardError(
            f"Memorization Guard: {pack} has replaced the function by which ComfyUI samples `model`, so this pack "
            f"cannot evaluate it. Remove the nodes of {pack} from `model`; for AMG Guidance, it is enough to set "
            "`deduplication` to 0."
        )
    conds = [prompt, negative]
    other = options.get(CALC_COND_BATCH)
    if other is not None:
        args = {"conds": conds, "input": x, "sigma": sigma, "model": model, "model_options": options}
        found = other.asked(args) if isinstance(other, FinishedPair) else other(args)
    else:
        found = comfy.samplers.calc_cond_batch(model, conds, x, sigma, options)
    return found[0], found[1]


@dataclass(frozen=True)
class FinishedPair:
    """The host's option by which `SamplerCall.guided` gives it two finished predictions in place of evaluations.

    It answers for these prompts alone. A patch of this pack that asks for others, or anyone for a gradient, gets an
    evaluation from `below`.
    """

    pair: list[Tensor]
    conds: Conds
    other: Callable[[dict], Sequence[Tensor]] | None  # what stood in the option before

    def __call__(self, args: dict) -> Sequence[Tensor]:
        return self.below(args) if args["input"].requires_grad else self.pair

    def asked(self, args: dict) -> Sequence[Tensor]:
        own = all(c is self.conds.get(name) for c, name in zip(args["conds"], ("positive", "negative"), strict=True))
        return self(args) if own else self.below(args)

    def below(self, args: dict) -> Sequence[Tensor]:
        if self.other is not None:
            return self.other.asked(args) if isinstance(self.other, FinishedPair) else self.other(args)
        return comfy.samplers.calc_cond_batch(*(args[k] for k in ("model", "conds", "input", "sigma", "model_options")))


def kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """For an evaluation that plain sampling would not make: patches such as HyperTile draw from the global state.

    Without it, their next draws would be others than KSampler's.
    """
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    return torch.random.fork_rng([device] if device.type == kind else [], device_type=kind)


@dataclass
class PartwiseCall:
    """An evaluation that plain sampling would not make, split by samples, then by prompts when memory runs out."""

    samples: BatchParts = field(default_factory=BatchParts)
    prompts: BatchParts = field(default_factory=BatchParts)

    def predictions(
        self, model: BaseModel, prompt: Prompt, negative: Prompt, x: Tensor, sigma: Tensor, options: Options
    ) -> Pair:
        """The same as `denoised_predictions`."""
        options = without_step_caches(options)
        named, batch = {"prompt": prompt, "negative": negative}, len(x)
        least = 1 if can_drop_rows(named, options) else batch

        def ask(rows: slice) -> Pair:
            size = rows.stop - rows.start
            mine = named if size == batch else rows_of(named, torch.arange(batch)[rows], batch)

            def ask_for(some: slice) -> list[Tensor]:
                first, second = (c if some.start <= k < some.stop else None for k, c in enumerate(mine.values()))
                return list(denoised_predictions(model, first, second, x[rows], sigma[rows], options)[some])

            if size > least or prompt is None or negative is None:
                return denoised_predictions(model, mine["prompt"], mine["negative"], x[rows], sigma[rows], options)
            first, second = (prediction for part in self.prompts.run(ask_for, 2) for prediction in part)
            return first, second

        with kept_random_state(x.device):
            parts = self.samples.run(ask, batch, least)
        if len(parts) == 1:
            return parts[0]
        return torch.cat([first for first, _ in parts]), torch.cat([second for _, second in parts])


class SampleScales(Tensor):
    """A guidance scale for each sample (B, 1, ...), where the host expects one number; what is computed is a Tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __float__(self) -> float:
        return float(self.max())


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
    def other_guidance(self) -> str:
        """The guider or the pack that combines the predictions in its own way or does not guide; or ""."""
        conds = self.guider.conds
        custom = guides_itself(self.guider)
        lacks = conds.get("positive") is None or conds.get("negative") is None or self.guider.cfg == 0
        return type(self.guider).__name__ if custom or lacks else other_sampling_function()

    @property
    def cfg_is_one(self) -> bool:
        return math.isclose(self.guider.cfg, 1.0)

    @property
    def may_skip_negative(self) -> bool:
        """Whether the host leaves out the negative prompt where guidance does not use it: patches can forbid that."""
        return not self.options.get("disable_cfg1_optimization", False)

    @property
    def smallest_part(self) -> int:
        """How many samples must be evaluated together: all, if another patch may keep data for each row."""
        others = self.executor.wrappers[self.executor.idx + 1 :] or [k for k in HOOKS if self.options.get(k)]
        return 1 if not others and can_drop_rows(self.guider.conds, self.options) else len(self.x)

    @property
    def uncached(self) -> SamplerCall:
        """The same call past the step caches of the host and of other packs."""
        options = without_step_caches(self.options)
        return replace(self, executor=past_step_caches(self.executor), options=options)

    def predict(self, options: Options | None = None) -> Tensor:
        """The denoised prediction (B, ...) of everything below this wrapper."""
        return self.executor(self.x, self.sigma, self.options if options is None else options, self.seed)

    def guided(self, cfg: float | Tensor, cond: Tensor, uncond: Tensor, conds: Conds | None = None) -> Tensor:
        """The guided prediction of the host and all patches for this pair, at one scale or at one for each sample (B,).

        `conds` replaces the run's prompts of the same names, for patches that evaluate the model themselves.
        """
        # At scale 1 the host evaluates no second prediction and guides against zero, which gives other bits.
        alone = not isinstance(cfg, Tensor) and math.isclose(cfg, 1.0) and self.may_skip_negative
        scale = broadcast(cfg, cond).as_subclass(SampleScales) if isinstance(cfg, Tensor) else cfg
        pair = [cond, torch.zeros_like(uncond) if alone else uncond]
        options = {**self.options, "disable_cfg1_optimization": not alone}
        kept, conds = (self.guider.cfg, self.guider.conds), {**self.guider.conds, **(conds or {})}
        options[CALC_COND_BATCH] = FinishedPair(pair, conds, self.options.get(CALC_COND_BATCH))
        try:
            self.guider.cfg, self.guider.conds = scale, conds
            return self.predict(options)
        finally:
            self.guider.cfg, self.guider.conds = kept
