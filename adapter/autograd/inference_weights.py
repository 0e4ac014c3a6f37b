"""Let autograd use the weights of ComfyUI's models, wherever the host keeps them.

They are loaded under inference mode, and autograd refuses to save an inference tensor. Inside a block each one is
replaced by a normal tensor on the same storage, which copies nothing; if the storage cannot be shared, the weight is
copied at each use. A weight that the host only lends to its layer for one call is copied at each use too: the memory
behind it belongs to the next layer when the backward pass needs it. Weights that hooks rewrite during a model call are
copied when autograd saves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import comfy.model_management
import comfy.utils
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..batch_rows import Conds

LENDABLE = ("weight", "bias")  # what the host's layers can get from elsewhere for one call


@contextmanager
def autograd_through(patchers: Iterable[ModelPatcher]) -> Iterator[None]:
    """Inside the block, autograd works through these models; afterwards they hold their own weights again.

    Load them before: the host decides while loading which layers hold their weights and which are lent them.
    """
    training = getattr(comfy.model_management, "in_training", None)
    with torch.inference_mode(False), ExitStack() as undo:
        for network, device in {patcher.model: patcher.load_device for patcher in patchers}.items():
            for layer in network.modules():
                _make_layer_usable(layer, device, undo)
        if training is not None:
            undo.callback(setattr, comfy.model_management, "in_training", training)
            comfy.model_management.in_training = True
        with torch.enable_grad():
            yield


def is_lent(layer: nn.Module, device: torch.device) -> bool:
    """Whether the host lends this layer its weights for each call on `device`.

    It does so when they lie elsewhere, in a buffer that the next layer reuses, and always under dynamic VRAM (`_v`).
    """
    if not isinstance(getattr(layer, "weight_function", None), list):  # not a layer of the host
        return False
    own = (layer._parameters.get(name) for name in LENDABLE)
    return hasattr(layer, "_v") or any(w is not None and w.device != device for w in own)


def _make_layer_usable(layer: nn.Module, device: torch.device, undo: ExitStack) -> None:
    lent = LENDABLE if is_lent(layer, device) else ()
    for name in lent:
        _clone_at_each_use(layer, name, undo)
    for table in (layer._parameters, layer._buffers):
        for name, weight in list(table.items()):
            if weight is not None and name not in lent and weight.is_inference():
                _make_usable(layer, table, name, weight, undo)


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
    """Let the host clone this weight whenever the layer computes, after everything else that it does with it."""
    attribute = f"{name}_function"
    functions = getattr(layer, attribute)
    with_clone = [*functions, torch.clone]  # a new list, because the whole class may share the old one
    own = attribute in layer.__dict__

    def restore() -> None:
        if layer.__dict__.get(attribute) is with_clone:  # otherwise the host has loaded the model again meanwhile
            setattr(layer, attribute, functions) if own else delattr(layer, attribute)

    undo.callback(restore)
    setattr(layer, attribute, with_clone)


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
