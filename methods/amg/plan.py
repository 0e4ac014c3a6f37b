"""What Anti-Memorization Guidance does in a run, and every mistake in it, reported before anything is sampled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...adapter.autograd.refusals import refuse_quantized
from ...adapter.conditioning import encode_caption
from ...adapter.errors import GuardError, dims
from ...mitigation.amg.caption_vote import DuplicatedCaptions
from ...mitigation.amg.guidance import GuidanceStrengths
from ...mitigation.amg.trace import GuidanceTrace
from ...mitigation.references.features import centre_all, shared_mean
from ...mitigation.references.reference_set import ReferenceSet

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

log = logging.getLogger("memorization_guard")
OnTrace = Callable[[GuidanceTrace], object]
NO_CAPTIONS = DuplicatedCaptions((), {})


@dataclass(frozen=True)
class AMGPlan:
    """Immutable, so that a patched model can be sampled any number of times."""

    references: ReferenceSet
    guidance: GuidanceStrengths
    through_model: bool = False
    every: int = 1  # compare with the references in every n-th step only
    memorized_threshold: float = 0.0  # steer only samples that pull harder at the first evaluation; 0: all
    vae: VAE | None = None
    captions: DuplicatedCaptions = NO_CAPTIONS
    encoded: tuple[list, ...] = ()  # CONDITIONING of each of captions.texts
    node: str = "AMG Guidance"
    on_step: OnTrace | None = None
    on_end: OnTrace | None = None

    @property
    def needs_guidance(self) -> tuple[str, ...]:
        """The inputs that act on the sampler's guidance, so that they do nothing at cfg 1."""
        guidance = self.guidance
        values = {
            "despecification": guidance.despecification,
            "deduplication": guidance.deduplication,
            "memorized_threshold": self.memorized_threshold,
        }
        return tuple(name for name, value in values.items() if value)

    @property
    def lower(self) -> str:
        """What an artist can lower when the guidance does not fit into memory."""
        ways = ["`gradient` to through prediction"] if self.through_model and self.guidance.dissimilarity else []
        if self.references.metric != "latent":
            ways += ["a TAESD as `vae`", "a reference set with metric latent"]
        return f"Use {', '.join([*ways, 'a smaller batch or image'])}. Sampling without AMG Guidance fits into memory."

    @cached_property
    def compared(self) -> tuple[Tensor, Tensor | None]:
        """The features (N, D) float16 that are searched, and the shared mean that was removed from them.

        Computed when the first run needs it and kept: a set of 4,000 SD latents takes seconds.
        """
        features = self.references.features
        if self.references.metric != "latent":
            return features, None
        with torch.inference_mode(False), torch.no_grad():
            mean = shared_mean(features)
            return centre_all(features, mean), mean


def complete(plan: AMGPlan, model: ModelPatcher, clip: CLIP | None) -> AMGPlan:
    """The plan with the duplicated captions, which are the only texts that deduplication can need.

    Raises GuardError if the plan does not fit the model or its parts do not fit together.
    """
    _check_set(model, plan.references, plan.vae, plan.node)
    if plan.through_model and plan.guidance.dissimilarity:
        refuse_quantized([model.model], plan.node, "Set `gradient` to through prediction")
    if plan.references.metric == "latent":
        plan = replace(plan, vae=None)
    return _with_captions(plan, clip) if plan.guidance.deduplication else plan


def _with_captions(plan: AMGPlan, clip: CLIP | None) -> AMGPlan:
    references, node = plan.references, plan.node
    if not references.has_captions:
        raise GuardError(
            f"{node}: deduplication needs captions, and `references` has none. Put .txt files beside the images "
            "(or fill in captions), or set deduplication to 0."
        )
    if clip is None:
        raise GuardError(
            f"{node}: deduplication needs a CLIP to read the captions: connect `clip`, or set deduplication to 0."
        )
    captions = DuplicatedCaptions.among(references.captions)
    if not captions.texts:
        log.info("%s: no caption occurs twice in the references: deduplication has nothing to do.", node)
    return replace(plan, captions=captions, encoded=tuple(encode_caption(clip, text) for text in captions.texts))


def _check_set(model: ModelPatcher, references: ReferenceSet, vae: VAE | None, node: str) -> None:
    channels = model.get_model_object("latent_format").latent_channels
    metric = references.metric
    if metric == "latent":
        if references.shape[0] != channels:
            raise GuardError(
                f"{node}: `references` were made for latents of {references.shape[0]} channels, `model` works with "
                f"{channels}. Make the set with this model's VAE."
            )
        return
    if vae is None:
        raise GuardError(
            f"{node}: a reference set with metric {metric} compares images: connect `vae` (a TAESD is enough and "
            "much faster), or make the set with metric latent."
        )
    made_for = getattr(vae, "latent_channels", channels)
    if made_for != channels:
        raise GuardError(
            f"{node}: `vae` decodes {made_for} channels, `model` works with {channels}. Connect the model's own VAE."
        )
    if metric == "descriptor" and references.descriptor is None:
        raise GuardError(
            f"{node}: `references` were made with the descriptor {references.descriptor_name or '(unknown)'}, which is "
            "not loaded. Connect it to the node that loads the set."
        )


def check_shape(plan: AMGPlan, noise: Tensor) -> None:
    """Raise a GuardError if the latents of a run cannot be compared with the set."""
    made, have = plan.references.shape, tuple(noise.shape[1:])
    if plan.references.metric == "latent" and made[-2:] == have[-2:] and made != have:
        raise GuardError(
            f"{plan.node}: `references` were made for latents of {dims(made)}, this run is a video of {dims(have)} "
            "(channels × frames × height × width). A video is compared as a whole: make the set from latents of videos "
            "of the same length (References from Latents), or bypass AMG Guidance."
        )
    if plan.references.metric == "latent" and made != have:
        raise GuardError(
            f"{plan.node}: `references` were made for latents of {dims(made)}, this run has {dims(have)} "
            "(channels × height × width; with SD's VAE, 64 is 512 pixels). Connect the sampler's latent to `size_of` "
            "of the node that makes the set and run again. A set that was saved must be made and saved again."
        )
    if plan.references.metric != "latent" and noise.ndim != 4 and not (noise.ndim == 5 and noise.shape[2] == 1):
        raise GuardError(
            f"{plan.node}: a set with metric {plan.references.metric} works on images, this run has {dims(have)}."
        )
