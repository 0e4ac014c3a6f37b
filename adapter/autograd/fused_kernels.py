"""Fused kernels of newer hosts' networks (Anima, Cosmos, Ernie, LTX), which have no backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

try:
    import comfy_kitchen
    from comfy_kitchen.backends import eager
except ImportError:  # an older host, which computes the same with plain operations
    comfy_kitchen = eager = None

KERNELS = ("apply_rope", "rms_rope", "adaln", "rms_adaln")


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Inside, the networks call the plain operations by which these kernels are defined."""
    with ExitStack() as undo:
        for name in dir(comfy_kitchen) if comfy_kitchen else ():
            if name.startswith(KERNELS) and hasattr(eager, name):
                undo.callback(setattr, comfy_kitchen, name, getattr(comfy_kitchen, name))
                setattr(comfy_kitchen, name, getattr(eager, name))
        yield
