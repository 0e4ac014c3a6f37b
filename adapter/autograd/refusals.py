"""What cannot be differentiated, said to the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from comfy.cli_args import args
from torch import Tensor, nn

from ...mitigation.gradient_check import WrongGradientError
from ..errors import GuardError
from .careful_operations import NEEDS_CARE

# How PyTorch says that an operation has no backward pass.
NO_BACKWARD = (*NEEDS_CARE, "no autograd formula", "is not implemented", "does not require grad")


def refuse_quantized(modules: Iterable[nn.Module], node: str, instead: str) -> None:
    """Raise a GuardError that offers `instead` if a weight is stored in a form that gradients cannot pass."""
    for module in modules:
        for layer in module.modules():
            scaled = getattr(layer, "scale_weight", None) is not None  # the host's scaled fp8
            for name, weight in layer.named_parameters(recurse=False):
                plain = type(weight) in (Tensor, nn.Parameter) and weight.dtype.is_floating_point
                if not plain or (scaled and weight.dtype.itemsize == 1):
                    raise GuardError(
                        f"{node}: the weights of `model` are quantized and cannot be differentiated ({name} is "
                        f"{type(weight).__name__}, {weight.dtype}). {instead}, or load the model in fp16, bf16 or fp32."
                    )


@contextmanager
def explain_missing_gradient(node: str, instead: str, through: str = "`model`") -> Iterator[None]:
    """Replace the errors of a gradient that is wrong, or that does not exist, by a GuardError that offers `instead`."""
    try:
        yield
    except WrongGradientError as error:
        flag = " or start ComfyUI with --disable-dynamic-vram" if hasattr(args, "disable_dynamic_vram") else ""
        raise GuardError(
            f"{node}: the gradient through {through} is wrong: {error}. Another pack's patch on it, or the way this "
            f"ComfyUI moves weights, gets in its way. {instead},{flag or ' or remove the patch'}."
        ) from error
    except RuntimeError as error:
        if not any(text in str(error) for text in NO_BACKWARD):
            raise
        why = " ".join(str(error).split())[:160]
        raise GuardError(
            f"{node}: a part of {through}, or a patch on it, cannot be differentiated. {instead}, or remove the patch. "
            f"({why})"
        ) from error
