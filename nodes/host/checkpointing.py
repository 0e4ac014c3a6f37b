"""Activation checkpointing for any of the host's networks: keep the inputs of each block, compute it again.

A graph through a whole UNet keeps every activation. With checkpoints only the borders between
blocks are kept, and one block at a time is computed again on the way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import comfy.model_management
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .gradient import OutOfPlace

# How many times the host's own estimate of a forward pass a graph without checkpoints holds; measured
# by `make bench-cost` on an SD1.5-sized UNet.
GRAPH = 8.0


def blocks(network: nn.Module) -> list[nn.Module]:
    """What a network repeats: the members of its own lists and sequences, sequences opened."""
    found: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            for part in child:
                found += part if isinstance(part, nn.Sequential) else [part]
    return [b for b in found if any(True for _ in b.children())]  # a single layer is not worth it


@contextmanager
def checkpointed(modules: list[nn.Module], out_of_place: bool = False) -> Iterator[None]:
    """Inside, every block of `modules` runs under a checkpoint; afterwards their forwards are untouched."""
    held: list[nn.Module] = []
    try:
        for block in modules:
            if "forward" not in block.__dict__:  # another pack's own forward stays
                block.forward = _again(block.forward, out_of_place)  # type: ignore[method-assign]
                held.append(block)
        yield
    finally:
        for block in held:
            block.__dict__.pop("forward", None)


def _again(forward, out_of_place: bool):
    def run(*args, **kwargs):
        # The host tells a block where it is by changing one shared dict as it goes; the second pass
        # has to see what the first one saw.
        def alone(*args, **kwargs):
            untouched(args, kwargs)
            with OutOfPlace() if out_of_place else nullcontext():  # the second pass is no call of the host's
                out = forward(*_own_dicts(args), **dict(zip(kwargs, _own_dicts(kwargs.values()), strict=True)))
            untouched(args, kwargs)
            return out

        def untouched(args, kwargs) -> None:
            if _versions(args, kwargs) != first:  # a checkpoint does not notice that by itself
                raise RuntimeError("the input of a block was modified by an inplace operation")

        first = _versions(args, kwargs)
        kept = dict(zip(kwargs, _own_dicts(kwargs.values()), strict=True))
        return checkpoint(alone, *_own_dicts(args), use_reentrant=False, **kept)

    return run


def _versions(args, kwargs) -> list[int]:
    """How often each tensor was written to."""
    return [v._version for v in [*args, *kwargs.values()] if isinstance(v, Tensor) and not v.is_inference()]


def _own_dicts(values) -> list:
    return [dict(v) if type(v) is dict else v for v in values]


def graph_fits(model, rows: int, shape: tuple[int, ...], device) -> bool:
    """Whether a graph over `rows` samples of `shape` fits the memory that the host has free, without checkpoints."""
    wanted = GRAPH * model.memory_required([2 * rows, *shape[1:]])
    return wanted < comfy.model_management.get_free_memory(device)
