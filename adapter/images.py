"""IMAGE outputs that may be empty."""

from __future__ import annotations

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor


def images_or_nothing(images: Tensor) -> Tensor | ExecutionBlocker:
    """The batch; without any image, the host's sign that nothing behind this output is to run."""
    return images if len(images) else ExecutionBlocker(None)
