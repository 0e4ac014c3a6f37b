"""IMAGE outputs that may be empty."""

from __future__ import annotations

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor


def images_or_nothing(batches: list[Tensor]) -> list[Tensor] | ExecutionBlocker:
    """A list output of batches; without any image, the host's sign that nothing behind this output is to run."""
    return [batch for batch in batches if len(batch)] or ExecutionBlocker(None)
