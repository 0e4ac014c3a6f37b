"""What a set of references holds, what was left out, and which duplicates it has: for an artist to read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..mitigation.references.duplicates import MOST, duplicate_captions, near_duplicates
from ..mitigation.references.reference_set import ReferenceSet

MOST_LINES = 20  # of each list; the rest is counted


def counted(number: int, what: str) -> str:
    """`1 reference`, `2 references`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def report(
    references: ReferenceSet, left_out: Sequence[tuple[str, str]] = (), signatures: Sequence[Tensor] = ()
) -> str:
    """`left_out`: (name, reason). `signatures`: of the pictures, where there are any."""
    shape = " × ".join(map(str, references.shape))
    lines = [
        f"{counted(len(references), 'reference')}, metric {references.metric} ({shape}), "
        f"{sum(map(bool, references.captions))} with a caption."
    ]
    if references.descriptor_name:
        lines.append(f"Descriptor: {references.descriptor_name}.")
    if left_out:
        lines.append(f"Left out {len(left_out)}:")
        lines += _some([f"- {name}: {reason}" for name, reason in left_out])
    captions = duplicate_captions(references.captions)
    if captions:
        lines.append("Captions that occur more than once:")
        lines += _some([f"- {len(group)} × {_short(references.captions[group[0]])}" for group in captions])
    if len(signatures) > MOST:
        lines.append(f"More than {MOST} pictures: near-duplicates were not looked for.")
    elif signatures:
        groups = near_duplicates(torch.stack(list(signatures)))
        if groups:
            lines.append("Pictures that are nearly the same:")
            lines += _some([f"- {_short(', '.join(references.names[i] for i in group))}" for group in groups])
        captions = captions or groups
    if captions:
        lines.append("Duplicates are what makes a model memorize: remove them before training on these pictures.")
    return "\n".join(lines)


def _some(lines: list[str]) -> list[str]:
    rest = len(lines) - MOST_LINES
    return lines if rest <= 0 else [*lines[:MOST_LINES], f"- and {rest} more"]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:159]}…"
