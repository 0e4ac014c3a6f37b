"""The ordinary images that score normalisation subtracts: what makes a set unfit for it, or suspicious."""

from __future__ import annotations

from torch import Tensor

from ..adapter.errors import GuardError
from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.references.score_normalisation import NEAREST, in_background
from ..mitigation.references.weights_fingerprint import same_weights
from ..mitigation.wording import counted


def check_background(background: ReferenceSet, references: ReferenceSet, node: str) -> None:
    """Raise GuardError if the background cannot be compared with what the references are compared with."""
    if references.metric != "descriptor":
        raise GuardError(
            f"{node}: `background` needs references with the descriptor metric, but these have the metric "
            f"{references.metric}. Disconnect it, or make the references with the descriptor metric."
        )
    if background.metric != "descriptor":
        raise GuardError(
            f"{node}: `background` has the metric {background.metric}. Make it with the descriptor metric, and with "
            f"the same descriptor as the references ({references.descriptor_name or 'unknown'})."
        )
    same = same_weights(background.descriptor_hash, references.descriptor_hash)
    if not same or background.shape != references.shape:
        unknown = "An older version of this pack saved a set, so it is unknown whether both have the same descriptor. "
        raise GuardError(
            f"{node}: {unknown if same is None else ''}`background` was made with "
            f"{background.descriptor_name or 'a descriptor'}, the references with "
            f"{references.descriptor_name or 'another one'}. Make both with the same descriptor."
        )
    if len(background) < NEAREST:
        raise GuardError(
            f"{node}: `background` holds {counted(len(background), 'image')}, but at least {NEAREST} are needed. "
            "Use a few hundred ordinary images or more."
        )


def overlap_warning(references: ReferenceSet, rows: Tensor, background: ReferenceSet) -> str:
    """A warning if nearest references are in the background, too, or ""."""
    both = in_background(references, rows, background)
    if not both:
        return ""
    more = f" and {counted(len(both) - 1, 'other reference')}" if len(both) > 1 else ""
    return (
        f"`background` holds {references.names[both[0]] or 'a reference'}{more}, so their copies are missed. Remove "
        "the references from the background."
    )
