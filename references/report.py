"""What a set of references holds, what was left out, and which duplicates it has: a text for artists."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..adapter.errors import dims
from ..adapter.long_work import check_interrupted
from ..mitigation.references.duplicates import duplicate_captions, near_duplicates
from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.wording import counted, shown
from .builder import MOST_COMPARED

MOST_LINES = 20  # of each list; the rest is counted


def report(
    references: ReferenceSet,
    duplicate_features: Sequence[Tensor] | None = (),
    left_out: Sequence[tuple[str, str]] = (),
    damaged: Sequence[str] = (),
    resumed: int = 0,
) -> str:
    """`left_out`: (name, reason) of files; `damaged`: names. `duplicate_features`: one row per image, if any; None
    if there are too many to compare. `resumed`: how many images a run that was stopped had read.
    """
    lines = [
        f"{counted(len(references), 'reference')}, metric {references.metric} ({dims(references.shape)}), "
        f"{sum(map(bool, references.captions))} with a caption."
    ]
    if references.descriptor_name:
        lines.append(f"Descriptor: {references.descriptor_name}.")
    if resumed:
        lines.append(f"The run that was stopped had read {counted(resumed, 'image')}: they were not read again.")
    if left_out:
        lines.append(f"Left out {counted(len(left_out), 'file')}:")
        lines += _first([f"- {name}: {reason}" for name, reason in left_out])
    if damaged:
        lines.append("Damaged, or with a very large colour profile; read as Load Image reads them:")
        lines += _first([f"- {name}" for name in damaged])
    duplicates = duplicate_captions(references.captions)
    if duplicates:
        lines.append("Captions that occur more than once:")
        lines += _first([f"- {len(group)} × {_short(references.captions[group[0]])}" for group in duplicates])
    if duplicate_features is None:
        lines.append(f"Near-duplicates were not searched, because there are more than {MOST_COMPARED} images.")
    elif duplicate_features:
        groups = near_duplicates(torch.stack(list(duplicate_features)), on_block=check_interrupted)
        if groups:
            lines.append("Images that are nearly the same:")
            lines += _first([f"- {_short(', '.join(references.names[i] for i in group))}" for group in groups])
        duplicates = duplicates or groups
    if duplicates:
        lines.append("Duplicates make a model memorize images: remove them before you train on this folder.")
    return "\n".join(lines)


def _first(lines: list[str]) -> list[str]:
    rest = len(lines) - MOST_LINES
    return lines if rest <= 0 else [*lines[:MOST_LINES], f"- and {rest} more"]


def _short(text: str) -> str:
    return shown(" ".join(text.split()))
