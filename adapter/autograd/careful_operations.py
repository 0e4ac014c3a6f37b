"""What autograd refuses in the host's networks and in other packs' patches, done in another way.

A ControlNet is added into the UNet's activations, Flux adds into its stream and FreeU_V2 writes into a part of one, to
save memory. Patches bring networks, masks and other tensors that nodes made under inference mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What autograd says where a second attempt with care can help.
NEEDS_CARE = ("inplace operation", "Inference tensors cannot be saved")


def needs_care(error: RuntimeError) -> bool:
    return any(text in str(error) for text in NEEDS_CARE)


def clone_if_inference(value: Any) -> Any:
    """A tensor that autograd can save; lists and tuples of tensors as well."""
    if isinstance(value, list | tuple):
        return type(value)(clone_if_inference(v) for v in value) if type(value) in (list, tuple) else value
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


class CarefulOperations(TorchFunctionMode):
    """Inside, `x += y` makes a new tensor where a graph may need the old one, and inference tensors are cloned."""

    OUT_OF_PLACE: ClassVar[dict[Any, Callable]] = {
        Tensor.add_: torch.add,
        Tensor.sub_: torch.sub,
        Tensor.mul_: torch.mul,
    }

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and func is not Tensor.clone:
            if any(isinstance(a, Tensor) and a.requires_grad for a in args):
                func = self.OUT_OF_PLACE.get(func, func)
            args, kwargs = clone_if_inference(args), {k: clone_if_inference(v) for k, v in kwargs.items()}
        return func(*args, **kwargs)


@contextmanager
def careful_operations() -> Iterator[None]:
    """Inside, autograd also keeps clones of what it saves, because a patch may write into a part of a tensor."""
    with CarefulOperations(), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda saved: saved):
        yield
