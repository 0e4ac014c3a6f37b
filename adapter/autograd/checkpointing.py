"""Activation checkpointing for any network of the host: keep the inputs of a block and compute the block again.

A graph through a whole UNet keeps every activation. Activations grow with a block's pixels, weights with its
channels: in a UNet the blocks with few weights hold most of the memory, so recomputing only those takes half the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import comfy.model_management
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .careful_operations import CarefulOperations
from .inference_weights import is_lent

CHECKPOINTING = ("auto", "on", "full", "off")
# Peak memory of a run without checkpoints, as a multiple of the host's estimate for one forward pass with fused
# attention. `make bench-cost` on a UNet of SD1.5's size, bf16, 256×256: 454 MB over 41 MB, 11.1.
WHOLE_GRAPH = 12.0
HALF_GRAPH = 6.0  # with half of the blocks recomputed: 5.3
# Bytes per latent pixel and byte of the data type, in that estimate: BaseModel.memory_required.
FUSED_ATTENTION_BYTES = 0.01 * 2**20
LAST_BLOCKS = 2  # the backward pass starts with these at once, so recomputing them would save next to nothing


def blocks_to_recompute(patchers: Sequence[ModelPatcher], choice: str, batch: Tensor) -> list[nn.Module]:
    """No blocks (`off`), the half with the fewest weights (`on`), or all of them (`full`).

    `patchers`: the sampled model, then all others that the graph passes. `auto` takes the first of these choices whose
    graph for `batch` (B, C, H, W) fits beside the model.
    """
    blocks = [b for p in patchers for b in repeated_blocks(getattr(p.model, "diffusion_model", p.model))]
    half = sorted(blocks, key=lambda b: sum(p.numel() for p in b.parameters()))[: math.ceil(len(blocks) / 2)]
    offered: dict[str, list[nn.Module]] = {"off": [], "on": half, "full": blocks}
    if choice == "auto":
        model, free = patchers[0].model, _free_beside(patchers[0])

        def fits(kind: str, ratio: float) -> bool:
            graph = graph_memory(model, batch.shape, ratio)
            return graph + copied_weights(patchers, offered[kind], compute_dtype(model)) < free

        choice = next((kind for kind, ratio in (("off", WHOLE_GRAPH), ("on", HALF_GRAPH)) if fits(kind, ratio)), "full")
    return offered[choice]


def _free_beside(patcher: ModelPatcher) -> float:
    """Bytes for a graph on the device of a model, as the host counts them, with all the model's weights kept there.

    Under dynamic VRAM the host also counts as free what any model's weights take, because it can evict them.
    """
    counts = getattr(patcher, "get_free_memory", comfy.model_management.get_free_memory)
    dynamic = getattr(patcher, "is_dynamic", lambda: False)()
    return counts(patcher.load_device) - (patcher.model_size() if dynamic else 0)


def copied_weights(patchers: Iterable[ModelPatcher], recomputed: Iterable[nn.Module], dtype: torch.dtype) -> int:
    """Bytes of the lent weights that a graph keeps copies of: those of layers that are not recomputed."""
    again = {layer for block in recomputed for layer in block.modules()}
    return sum(
        weight.numel() * dtype.itemsize
        for patcher in patchers
        for layer in patcher.model.modules()
        if layer not in again and is_lent(layer, patcher.load_device)
        for weight in layer.parameters(recurse=False)
    )


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The members of a network's own lists and sequences, with nested sequences opened, except the last LAST_BLOCKS."""
    blocks: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            for member in child:
                blocks += member if isinstance(member, nn.Sequential) else [member]
    return [b for b in blocks if list(b.children())][:-LAST_BLOCKS]  # a single layer is not worth it


@contextmanager
def checkpointed(blocks: Iterable[nn.Module], careful: bool = False) -> Iterator[None]:
    """Inside, these blocks run under a checkpoint, except those whose `forward` another pack has replaced."""
    changed: list[nn.Module] = []
    try:
        for block in blocks:
            if "forward" not in block.__dict__:  # otherwise another pack has replaced it
                block.forward = _with_checkpoint(block.forward, careful)
                changed.append(block)
        yield
    finally:
        for block in changed:
            block.__dict__.pop("forward", None)


def _with_checkpoint(forward: Callable, careful: bool) -> Callable:
    def run(*args: Any, **kwargs: Any) -> Any:
        versions = _versions(args, kwargs)

        def compute(*args: Any, **kwargs: Any) -> Any:
            own_args, own_kwargs = _copy_dicts(args, kwargs)
            # The recomputation happens outside the host's call and so outside its wrappers.
            with CarefulOperations() if careful else nullcontext():
                out = forward(*own_args, **own_kwargs)
            if _versions(args, kwargs) != versions:  # a checkpoint does not notice this itself
                raise RuntimeError("the input of a block was modified by an inplace operation")
            return out

        # The host tells a block where it is in one shared dict that it changes as it goes: the recomputation must
        # see what the first pass saw.
        own_args, own_kwargs = _copy_dicts(args, kwargs)
        return checkpoint(compute, *own_args, use_reentrant=False, **own_kwargs)

    return run


def _versions(args: Sequence, kwargs: dict) -> list[int]:
    """How often each tensor was written to."""
    return [v._version for v in [*args, *kwargs.values()] if isinstance(v, Tensor) and not v.is_inference()]


def _copy_dicts(args: Sequence, kwargs: dict) -> tuple[list, dict]:
    def copied(value: Any) -> Any:
        return dict(value) if type(value) is dict else value

    return [copied(v) for v in args], {k: copied(v) for k, v in kwargs.items()}


def graph_memory(model: BaseModel, shape: Sequence[int], ratio: float = WHOLE_GRAPH) -> float:
    """Bytes of a graph over a batch of `shape` (B, C, H, W) under both conditions; `ratio`: WHOLE_GRAPH or HALF_GRAPH.

    It starts from the host's estimate for fused attention, because the gradient pass always uses PyTorch's. The
    estimate for other kinds is up to 7 times as high.
    """
    pixels = 2 * shape[0] * math.prod(shape[2:])
    return ratio * FUSED_ATTENTION_BYTES * pixels * compute_dtype(model).itemsize * model.memory_usage_factor


def compute_dtype(model: BaseModel) -> torch.dtype:
    return model.manual_cast_dtype or model.get_dtype()
