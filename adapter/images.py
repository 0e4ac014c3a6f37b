"""IMAGE outputs that may be empty, and what a node shows below it."""

from __future__ import annotations

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from .long_work import interruptible

SAVED_AT_ONCE = 4


def images_or_nothing(batches: list[Tensor]) -> list[Tensor] | ExecutionBlocker:
    """A list output of batches; without any image, the host's sign that nothing behind this output is to run."""
    return [batch for batch in batches if len(batch)] or ExecutionBlocker(None)


def clean_and_copies(batches: list[Tensor], copies: Tensor) -> tuple[list[Tensor] | ExecutionBlocker, ...]:
    """The images without an alarm, and those with one, by `copies` (images of all batches,) bool."""
    own = copies.split([len(batch) for batch in batches])
    return tuple(
        images_or_nothing([batch[some == alarm] for batch, some in zip(batches, own, strict=True)])
        for alarm in (False, True)
    )


def previews(parts: list[Tensor], node: type[io.ComfyNode]) -> dict:
    """As the host's Preview Image, which saves a whole batch before it looks whether the user has stopped the run."""
    few = [some for part in parts for some in part.split(SAVED_AT_ONCE)]
    saved = [ui.PreviewImage(part, cls=node).as_dict() for part in interruptible(few)]
    return {**saved[0], "images": [image for part in saved for image in part["images"]]}
