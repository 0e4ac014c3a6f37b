"""In-place writes of the host's networks, which autograd cannot go back through.

A ControlNet is added into the UNet's activations, and Flux adds into its stream, to save memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class AvoidInPlaceWrites(TorchFunctionMode):
    """Inside, `x += y` makes a new tensor where autograd may still need the old one."""

    OUT_OF_PLACE: ClassVar[dict[Any, Callable]] = {
        Tensor.add_: torch.add,
        Tensor.sub_: torch.sub,
        Tensor.mul_: torch.mul,
    }

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if any(isinstance(a, Tensor) and a.requires_grad for a in args):
            func = self.OUT_OF_PLACE.get(func, func)
        return func(*args, **(kwargs or {}))


def is_in_place_error(error: RuntimeError) -> bool:
    """Whether autograd stopped because a tensor that it needs was overwritten."""
    return "inplace operation" in str(error)
