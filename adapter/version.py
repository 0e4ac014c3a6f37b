"""The places where the host lets a pack in; one that an older host lacks is told in a sentence."""

from __future__ import annotations

import comfy.patcher_extension

from .. import OLDEST
from .errors import GuardError

WRAPPERS = comfy.patcher_extension.WrappersMP


def predict_noise(node: str) -> str:
    """The wrapper around what the sampler finally gets. Raises GuardError on a host older than OLDEST."""
    kind = getattr(WRAPPERS, "PREDICT_NOISE", None)
    if kind is None:
        raise GuardError(f"{node}: this ComfyUI is too old for it. Update ComfyUI to {OLDEST} or newer.")
    return kind
