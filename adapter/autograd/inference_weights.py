"""Let autograd use the weights of ComfyUI's models.

They are loaded under inference mode, and autograd refuses to save an inference tensor. Inside a block each one is
replaced by a normal tensor on the same storage, which copies nothing; if the storage cannot be shared, the weight is
copied at each use. Weights that hooks rewrite during a model call are copied when autograd saves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import comfy.model_management
import comfy.utils
import torch
from comfy.model_base import BaseModel
from torch import Tensor, nn

from ..batch_rows import Conds
from ..errors import GuardError


def refuse_quantized(modules: Iterable[nn.Module], node: str, advice: str) -> None:
    """Raise a GuardError with this `advice` if a weight is stored in a form that gradients cannot pass."""
    for module in modules:
        for layer in module.modules():
            scaled = getattr(layer, "scale_weight", None) is not None  # the host's scaled fp8
            for name, weight in layer.named_parameters(recurse=False):
                plain = type(weight) in (Tensor, nn.Parameter) and weight.dtype.is_floating_point
                if not plain or (scaled and weight.dtype.itemsize == 1):
                    raise GuardError(
                        f"{node}: the weights of `model` are quantized and cannot be differentiated ({name} is "
                        f"{type(weight).__name__}, {weight.dtype}). {advice}, or load the model in fp16, bf16 or fp32."
                    )


@contextmanager
def autograd_through(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block, autograd works through `modules`; afterwards they hold their own weights again."""
    training = getattr(comfy.model_management, "in_training", None)
    with torch.inference_mode(False), ExitStack() as undo:
        for module in modules:
            for layer in module.modules():
                for table in (layer._parameters, layer._buffers):
                    for name, weight in list(table.items()):
                        if weight is not None and weight.is_inference():
                            _make_usable(layer, table, name, weight, undo)
        if training is not None:
            undo.callback(setattr, comfy.model_management, "in_training", training)
            comfy.model_management.in_training = True
        with torch.enable_grad():
            yield


def _make_usable(layer: nn.Module, table: dict, name: str, weight: Tensor, undo: ExitStack) -> None:
    """Give autograd one weight of a layer in a form that it can save, until `undo` is closed."""
    try:
        usable = _tensor_on_same_storage(weight)
    except (RuntimeError, NotImplementedError):
        if isinstance(getattr(layer, f"{name}_function", None), list):
            _clone_at_each_use(layer, name, undo)
            return
        usable = weight.clone()
    if isinstance(weight, nn.Parameter):
        usable = nn.Parameter(usable, requires_grad=False)

    def restore() -> None:
        if table.get(name) is usable:  # otherwise the host has moved or patched the weight meanwhile
            table[name] = weight

    table[name] = usable
    undo.callback(restore)


def _tensor_on_same_storage(weight: Tensor) -> Tensor:
    """A normal tensor on the storage of an inference tensor."""
    normal = torch.empty(0, dtype=weight.dtype, device=weight.device)
    return normal.set_(weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride())


def _clone_at_each_use(layer: nn.Module, name: str, undo: ExitStack) -> None:
    """Let the host apply a cloning function to this weight whenever the layer computes; a clone is a normal tensor."""
    attribute = f"{name}_function"
    functions = getattr(layer, attribute)
    if attribute in layer.__dict__:
        undo.callback(setattr, layer, attribute, functions)
    else:
        undo.callback(layer.__dict__.pop, attribute, None)
    setattr(layer, attribute, [*functions, clone_if_inference])  # a new list, because the whole class may share the old


def clone_if_inference(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def hook_weights(model: BaseModel, conds: Conds) -> list[Tensor]:
    """The weights that hooks on these conditions rewrite, such as a LoRA that belongs to one prompt."""
    if not any(cond.get("hooks") for group in conds.values() for cond in group):
        return []
    keys = {key for patches in model.current_patcher.hook_patches.values() for key in patches}
    return [comfy.utils.get_attr(model, key) for key in keys]


@contextmanager
def cloned_when_saved(weights: list[Tensor]) -> Iterator[None]:
    """Let autograd save clones of these weights.

    The host patches them in place between two conditions, and autograd does not notice: without clones the backward
    pass would use the weights of the last condition, and the gradient would be wrong without an error.
    """
    storages = {w.untyped_storage().data_ptr() for w in weights}

    def save(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in storages else tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda saved: saved) if storages else nullcontext():
        yield
