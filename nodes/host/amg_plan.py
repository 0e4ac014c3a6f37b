"""What can go wrong with Anti-Memorization Guidance, said before anything is sampled."""

from __future__ import annotations

import logging

from ...mitigation.amg import Guidance
from ...mitigation.duplicates import DuplicatedCaptions
from ...mitigation.references import ReferenceSet
from .amg import Plan
from .captions import encode
from .errors import GuardError

log = logging.getLogger("memorization_guard")


def make_plan(
    model, references: ReferenceSet, guidance: Guidance, *, vae, clip, through_model: bool, every: int, node: str
) -> Plan:
    """A plan whose parts fit together; raises GuardError for the ones that do not.

    Encodes the duplicated captions: the only texts that deduplication can need.
    """
    if not isinstance(references, ReferenceSet):
        raise GuardError(f"{node}: `references` is not a reference set. Connect one of the References nodes.")
    _check_metric(model, references, vae, node)
    captions, encoded = DuplicatedCaptions((), {}), ()
    if guidance.deduplication:
        if not references.has_captions:
            raise GuardError(
                f"{node}: deduplication needs captions, and `references` has none. Put .txt files beside the pictures "
                "(or fill in captions), or set deduplication to 0."
            )
        if clip is None:
            raise GuardError(
                f"{node}: deduplication needs a CLIP to read the captions: connect `clip`, or set deduplication to 0."
            )
        captions = DuplicatedCaptions.among(references.captions)
        encoded = tuple(encode(clip, captions.texts))
        if not encoded:
            log.info("%s: no caption occurs twice in the references: deduplication has nothing to do.", node)
    return Plan(
        references=references,
        guidance=guidance,
        through_model=through_model,
        every=every,
        vae=None if references.metric == "latent" else vae,
        captions=captions,
        encoded=encoded,
        node=node,
    )


def _check_metric(model, references: ReferenceSet, vae, node: str) -> None:
    channels = model.get_model_object("latent_format").latent_channels
    metric, count = references.metric, len(references)
    if metric == "latent":
        if references.shape[0] != channels:
            raise GuardError(
                f"{node}: `references` were made for latents of {references.shape[0]} channels, `model` works with "
                f"{channels}. Make the set with this model's VAE."
            )
        return
    if vae is None:
        raise GuardError(
            f"{node}: a reference set with metric {metric} compares pictures: connect `vae` (a TAESD is enough and "
            "much faster), or make the set with metric latent."
        )
    made_for = getattr(vae, "latent_channels", channels)
    if made_for != channels:
        raise GuardError(
            f"{node}: `vae` decodes {made_for} channels, `model` works with {channels}. Connect its own VAE."
        )
    if metric == "nL2" and count < references.k + 1:
        raise GuardError(
            f"{node}: metric nL2 compares with the {references.k} nearest references and needs at least "
            f"{references.k + 1}, `references` has {count}. Add pictures, or make the set with metric latent."
        )
    if metric == "descriptor" and references.descriptor is None:
        raise GuardError(
            f"{node}: `references` were made with the descriptor {references.descriptor_name or '(unknown)'}, which is "
            "not loaded. Connect it to the node that loads the set."
        )
