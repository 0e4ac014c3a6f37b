"""Activation checkpointing for any of the host's networks: keep the inputs of a block, compute it again.

A graph through a whole UNet keeps every activation. With checkpoints only the borders between
blocks are kept, and one block at a time is computed again on the way back. A block's activations grow
with its pixels, its weights with its channels: in a UNet the blocks with few weights hold most of the
memory, and computing only those again costs half as much time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import comfy.model_management
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .inference_weights import OutOfPlace

Choice = Literal["auto", "on", "full", "off"]
CHOICES: tuple[str, ...] = ("auto", "on", "full", "off")
# Memory at the top of a run without checkpoints, over what the host estimates for one forward pass with
# fused attention. `make bench-cost` on a UNet of SD1.5's size, bf16, 256×256: 454 MB over 41 MB, 11.1.
GRAPH = 12.0
HALF = 6.0  # with half of the blocks computed again: 5.3
FUSED = 0.01 * 2**20  # bytes a latent pixel and byte of the data type: the host's estimate, BaseModel.memory_required
# The way back begins with these blocks at once, so computing them again would cost time and save next to nothing.
KEPT = 2


def chosen_blocks(
    networks: Iterable[nn.Module], choice: str, *, model, rows: int, shape: tuple[int, ...], device
) -> list[nn.Module]:
    """What is computed again under this `choice`: nothing (`off`), half the blocks (`on`), or all of them (`full`).

    `auto` takes the first of these whose graph fits what the host has free.
    """
    if choice == "auto":
        fitting = (kind for kind, share in (("off", GRAPH), ("on", HALF)) if _fits(model, rows, shape, device, share))
        choice = next(fitting, "full")
    if choice == "off":
        return []
    found = [b for network in networks for b in blocks(getattr(network, "diffusion_model", network))]
    return found if choice == "full" else sorted(found, key=_weights)[: math.ceil(len(found) / 2)]


def _weights(block: nn.Module) -> int:
    return sum(p.numel() for p in block.parameters())


def blocks(network: nn.Module) -> list[nn.Module]:
    """What a network repeats, but for the last of it: the members of its own lists and sequences, sequences opened."""
    found: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            for part in child:
                found += part if isinstance(part, nn.Sequential) else [part]
    return [b for b in found if any(True for _ in b.children())][:-KEPT]  # a single layer is not worth it


@contextmanager
def checkpointed(modules: list[nn.Module], out_of_place: bool = False) -> Iterator[None]:
    """Inside, every block of `modules` runs under a checkpoint; afterwards their forwards are untouched."""
    held: list[nn.Module] = []
    try:
        for block in modules:
            if "forward" not in block.__dict__:  # another pack's own forward stays
                block.forward = _again(block.forward, out_of_place)
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


def graph_memory(model, rows: int, shape: tuple[int, ...], share: float = GRAPH) -> float:
    """Bytes that a graph takes, over `rows` samples of `shape` under both conditions; `share`: GRAPH or HALF.

    The host's estimate for fused attention, whatever attention it uses itself: the gradient pass always
    uses PyTorch's. Its estimate for other kinds is up to 7 times as high.
    """
    dtype = model.manual_cast_dtype or model.get_dtype()
    pixels = 2 * rows * math.prod(shape[2:])
    return share * FUSED * pixels * dtype.itemsize * model.memory_usage_factor


def _fits(model, rows: int, shape: tuple[int, ...], device, share: float) -> bool:
    """Whether that graph fits what the host has free on the device, the model's weights being there already."""
    return graph_memory(model, rows, shape, share) < comfy.model_management.get_free_memory(device)
