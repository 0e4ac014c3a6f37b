"""Fused kernels of newer hosts' networks (Anima, Cosmos, Ernie, LTX), which have no backward pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

KERNELS = ("apply_rope", "rms_rope", "adaln", "rms_adaln")


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Inside, the networks call the plain operations by which these kernels are defined."""
    fused, plain = sys.modules.get("comfy_kitchen"), sys.modules.get("comfy_kitchen.backends.eager")
    with ExitStack() as undo:
        for name in dir(fused) if fused and plain else ():  # older hosts call plain operations anyway
            if name.startswith(KERNELS) and hasattr(plain, name):
                undo.callback(setattr, fused, name, getattr(fused, name))
                setattr(fused, name, getattr(plain, name))
        yield
