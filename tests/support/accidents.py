"""Accidents by another pack's hook, devices that are too small, and what neither may leave behind."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from support.executor import NodeError

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


def broken() -> None:
    raise RuntimeError("another pack's hook")


class Backwards(torch.autograd.Function):
    """The identity, with an accident on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        ctx.kind = kind
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        HAPPEN[ctx.kind]()
        return grad * torch.nan if ctx.kind == "nan" else grad, None


HAPPEN: dict[str, Callable[[], None]] = {
    "out of memory": out_of_memory,
    "interrupt": comfy.model_management.interrupt_current_processing,
    "exception": broken,
    "nan": lambda: None,
    "unload": comfy.model_management.unload_all_models,
}


class Trouble(Hook):
    """A model function wrapper, or hooks on a network: from call `at` on, the accident happens at every call.

    Counted are the calls with gradients only (`graphs`), or all. `backwards`: it happens on the way back.
    """

    def __init__(self, kind: str, at: int, graphs: bool = False, backwards: bool = False) -> None:
        self.kind, self.at, self.graphs, self.backwards = kind, at, graphs, backwards
        self.calls = 0

    @property
    def happened(self) -> bool:
        return self.calls >= self.at

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> Tensor:
        self._before()
        return self._after(apply_model(args["input"], args["timestep"], **args["c"]))

    @contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        hooks = [
            network.register_forward_pre_hook(lambda *_: self._before()),
            network.register_forward_hook(lambda _, given, out: self._after(out)),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _counts(self) -> bool:
        return torch.is_grad_enabled() or not self.graphs

    def _before(self) -> None:
        self.calls += self._counts()
        if self._counts() and self.happened and not self.backwards:
            HAPPEN[self.kind]()

    def _after(self, out: Any) -> Any:
        if isinstance(out, tuple):  # the host's CLIP gives several
            return tuple(self._after(part) for part in out)
        if not (isinstance(out, Tensor) and self._counts() and self.happened):
            return out
        if self.backwards:
            return Backwards.apply(out, self.kind)
        return out * torch.nan if self.kind == "nan" else out


def hooked(model: ModelPatcher, hook: Callable) -> ModelPatcher:
    made = model.clone()
    made.set_model_unet_function_wrapper(hook)
    return made


def slots(network: nn.Module) -> dict[str, tuple[int, bytes, bool]]:
    """Every weight: which object it is, its bytes, and whether it wants a gradient (a checkpoint's do)."""
    tables = [(n, t) for n, m in network.named_modules() for t in (m._parameters, m._buffers)]
    held = [(f"{n}.{k}", v) for n, t in tables for k, v in t.items() if v is not None]
    raw = {name: v.detach().cpu().flatten().view(torch.uint8).numpy().tobytes() for name, v in held}
    return {name: (id(v), raw[name], v.requires_grad) for name, v in held}


def left_behind(model: ModelPatcher) -> list[str]:
    """What an accident left on a model or in the host: nothing, if all is well."""
    network, found = model.model, []
    for name, module in network.named_modules():
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            found += [f"{name}: {kind}"] if getattr(module, kind) else []
        found += [f"{name}: a forward of its own"] if "forward" in module.__dict__ else []
        held = [*module._parameters.items(), *module._buffers.items()]
        found += [f"{name}.{k}: a gradient" for k, v in held if v is not None and v.is_leaf and v.grad is not None]
    for kind in ("backup", "object_patches_backup", "hook_backup"):
        found += [kind] if getattr(model, kind, None) else []
    marks = {
        "no gradients": not torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "training": getattr(comfy.model_management, "in_training", False),
        "interrupted": comfy.model_management.processing_interrupted(),
        "options": set(model.model_options) - {"transformer_options", "model_function_wrapper"},
    }
    return found + [name for name, is_left in marks.items() if is_left]
