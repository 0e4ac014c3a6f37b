"""Devices that are too small, and what their error has to say."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from support.executor import NodeError
from support.lab_pack import exact

BATCH, MODEL, GUIDED = 5, {"model": ["m", 0]}, {"model": ["g", 0]}
OWN = {"positive": ["p", 0]}  # a prompt of its own for every image
PROMPTS = [exact.conditioning(name)[0][0] for name in ("ordinary", "memorized", "null", "memorized", "memorized")]
EACH = {"p": [[torch.cat(PROMPTS), {}]]}
WORKS = {"works": {"samples": exact.x_mem().repeat(2, 1, 1, 1)}}
# What CUDA says, in its own words.
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1 GiB is free."


def out_of_memory() -> None:
    raise torch.OutOfMemoryError(FULL)


class Hook:
    """A model function wrapper. A clone of the model copies its options deeply; this stays one object."""

    def __deepcopy__(self, memo: dict) -> "Hook":
        return self


class Small(Hook):
    """A model function wrapper on a device too small for more than `rows` rows at once, or rows of a graph."""

    def __init__(self, rows: int, graphs: bool = False) -> None:
        self.rows, self.graphs = rows, graphs
        self.failed = 0
        self.most = 0  # rows that went through
        self.held: list[weakref.ref] = []  # what the failed attempts had made

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> Tensor:
        assert all(made() is None for made in self.held), "what the last attempt had made is let go of before the next"
        out = apply_model(args["input"], args["timestep"], **args["c"])
        if len(args["input"]) > self.rows and (torch.is_grad_enabled() or not self.graphs):
            self.failed += 1
            self.held.append(weakref.ref(out))
            out_of_memory()
        self.most = max(self.most, len(args["input"]))
        return out


class NeedsCheckpoints(Hook):
    """A device on which a graph fits with all blocks computed again only; the first `free` graphs fit anyway."""

    def __init__(self, model: Any, free: int = 0) -> None:
        self.network, self.free = model.model, free
        self.seen: list[tuple[int, bool]] = []  # rows of every graph, and whether there were checkpoints

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> Tensor:
        if torch.is_grad_enabled():
            thrifty = any("forward" in m.__dict__ for m in self.network.modules())
            self.seen.append((len(args["input"]), thrifty))
            if not thrifty and len(self.seen) > self.free:
                out_of_memory()
        return apply_model(args["input"], args["timestep"], **args["c"])


@contextmanager
def network_too_small(network: nn.Module, rows: int) -> Iterator[list[int]]:
    """Inside, the network runs out of memory with more rows than that; yields the rows of every attempt."""
    seen: list[int] = []

    def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append(len(args[0] if args else next(iter(kwargs.values()))))
        if seen[-1] > rows:
            out_of_memory()

    handle = network.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def told(error: NodeError, *says: str) -> None:
    """The host took it for out of memory, which unloads all models, and it says whose fault it is and what to lower."""
    assert error.kind.endswith("OutOfMemoryError"), error
    assert "This error means you ran out of memory on your GPU" in error.message, "the host's own tip"
    assert "Tried to allocate 2.00 GiB" in error.message
    for words in ("out of memory", *says):
        assert words in error.message
    loaded = [held.model for held in comfy.model_management.current_loaded_models]
    assert not any(model is not None for model in loaded), "None: a clone that is gone, which the host forgets later"
