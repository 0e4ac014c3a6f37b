"""Despecification and deduplication: guidances that are linear in the predictions. [AMG] Eq. 11–14"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...adapter.model_call import Options
from ...mitigation.amg.guidance import move_away
from ...mitigation.batch import replace_samples
from .caption_predictions import Captions


@dataclass(frozen=True)
class GuidancePair:
    """The two predictions that the host guided with."""

    cond: Tensor
    uncond: Tensor
    cfg: Tensor  # (B,) the scale of each sample

    @property
    def guided(self) -> Tensor:
        """(B,) bool. False while CFG is deferred: both predictions of a sample are the same, or its scale is low."""
        return ((self.cond - self.uncond).flatten(1).abs().amax(dim=1) > 0) & (self.cfg > 1)


class GuidanceRecorder:
    """A post-CFG hook of the host that keeps the pair; None where the run does not guide."""

    pair: GuidancePair | None = None

    def __call__(self, args: dict) -> Tensor:
        cond, uncond, denoised = args["cond_denoised"], args["uncond_denoised"], args["denoised"]
        cfg = torch.as_tensor(args["cond_scale"], dtype=torch.float32, device=denoised.device).flatten()
        guides = bool((cfg > 1).any()) and cond is not None and uncond is not None
        self.pair = GuidancePair(cond, uncond, cfg.expand(len(denoised))) if guides else None
        return args["denoised"]

    def hooked(self, options: Options) -> Options:
        """The options with this hook behind all others."""
        hooks = options.get("sampler_post_cfg_function", [])
        return {**options, "sampler_post_cfg_function": [*hooks, self]}


@dataclass(frozen=True)
class LinearGuidance:
    """The scales of one evaluation, kept so that it can be repeated with gradients."""

    s1: Tensor  # (B,)
    s2: Tensor  # (B,)
    captions: Captions = field(default_factory=list)

    @property
    def needs_captions(self) -> bool:
        return any(caption is not None for caption in self.captions)

    def apply(self, denoised: Tensor, pair: GuidancePair, caption_prediction: Tensor | None) -> Tensor:
        """The steered prediction (B, ...); samples whose scales are 0 keep their bits."""
        moved = move_away(denoised, pair.cond, pair.uncond, self.s1)  # [AMG] Eq. 11
        if caption_prediction is not None:
            moved = move_away(moved, caption_prediction, pair.uncond, self.s2)  # [AMG] Eq. 13
        return replace_samples((self.s1 > 0) | (self.s2 > 0), moved, denoised)

    def for_autograd(self, rows: slice) -> LinearGuidance:
        """Of these samples, without tensors made under inference mode."""
        return LinearGuidance(self.s1[rows].clone(), self.s2[rows].clone(), self.captions[rows])
