"""Gradients through a model in a host that runs everything under inference mode.

Checkpoints are loaded under `torch.inference_mode()`, so every weight is an inference tensor, which
autograd refuses to save. Here each one is replaced, for the duration of a block, by a normal tensor
on the same storage: no copy, no other bytes, and the very same objects are back afterwards. A weight
whose storage cannot be shared is copied for each use instead, by an identity `weight_function`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import GuardError

KEY = "memorization_guard_gradient"

try:  # the attention back end whose backward always works; older hosts lack the override
    from comfy.ldm.modules.attention import attention_pytorch
except ImportError:  # pragma: no cover - a moved symbol costs the override only
    attention_pytorch = None


def refuse_quantized(modules: Iterable[nn.Module], node: str) -> None:
    """Raise a GuardError if a weight is stored in a form that gradients cannot pass."""
    for module in modules:
        for part in module.modules():
            scaled = getattr(part, "scale_weight", None) is not None  # the host's scaled fp8
            for name, weight in part.named_parameters(recurse=False):
                plain = type(weight) in (Tensor, nn.Parameter) and weight.dtype.is_floating_point
                if not plain or (scaled and weight.dtype.itemsize == 1):
                    kind = f"{type(weight).__name__}, {weight.dtype}"
                    raise GuardError(
                        f"{node}: the weights of `model` cannot be differentiated ({name} is {kind}: a quantized "
                        "model). Set method to search or batch-wise, or load the model in fp16, bf16 or fp32."
                    )


@contextmanager
def differentiable(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside the block, autograd works through `modules`; afterwards they hold what they held.

    Only slots that still hold the alias are restored, so a host that moves or patches a weight
    meanwhile keeps its own doing.
    """
    training = getattr(comfy.model_management, "in_training", None)
    with torch.inference_mode(False), ExitStack() as undo:
        for module in modules:
            for part in module.modules():
                for table in (part._parameters, part._buffers):
                    for name, held in list(table.items()):
                        if held is not None and held.is_inference():
                            _thaw(part, table, name, held, undo)
        if training is not None:
            undo.callback(setattr, comfy.model_management, "in_training", training)
            comfy.model_management.in_training = True
        with torch.enable_grad():
            yield


def _thaw(part: nn.Module, table: dict, name: str, held: Tensor, undo: ExitStack) -> None:
    """Make one weight usable by autograd until `undo` is closed."""
    try:
        usable = _alias(held)
    except (RuntimeError, NotImplementedError):
        functions = getattr(part, f"{name}_function", None)
        if isinstance(functions, list):
            # The host copies a weight that has a function, for each use, and the copy is a normal tensor.
            setattr(part, f"{name}_function", [*functions, _same])  # the list itself can be the whole class's
            undo.callback(_restore_functions, part, name, functions)
            return
        usable = nn.Parameter(held.clone(), requires_grad=False) if isinstance(held, nn.Parameter) else held.clone()
    table[name] = usable
    undo.callback(_put_back, table, name, held, usable)


def _restore_functions(part: nn.Module, name: str, functions: list) -> None:
    attribute = f"{name}_function"
    if getattr(type(part), attribute, None) is functions:
        part.__dict__.pop(attribute, None)
    else:
        setattr(part, attribute, functions)


def _same(weight: Tensor) -> Tensor:
    return weight.clone() if weight.is_inference() else weight


def _put_back(table: dict, name: str, held: Tensor, alias: Tensor) -> None:
    if table.get(name) is alias:
        table[name] = held


def _alias(held: Tensor) -> Tensor:
    """A normal tensor on the storage of an inference tensor."""
    normal = torch.empty(0, dtype=held.dtype, device=held.device)
    normal.set_(held.untyped_storage(), held.storage_offset(), held.size(), held.stride())
    return nn.Parameter(normal, requires_grad=False) if isinstance(held, nn.Parameter) else normal


@contextmanager
def weights_that_change(changing: list[Tensor]) -> Iterator[None]:
    """Let a graph keep copies of these weights: a LoRA on one prompt rewrites them between the branches.

    The host patches such weights in place, unseen by autograd; without copies the way back would use
    whatever was patched in last, and the gradient would be wrong without a word.
    """
    storages = {w.untyped_storage().data_ptr() for w in changing}

    def keep(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in storages else tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept) if storages else ExitStack():
        yield


def normal_conds(conds: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Processed conditions with every tensor cloned out of inference mode. Call inside the block."""

    def thaw(value):
        if isinstance(value, Tensor):
            return value.clone() if value.is_inference() else value
        if isinstance(value, list):
            return [thaw(v) for v in value]
        return value

    def entry(cond: dict) -> dict:
        out = {k: thaw(v) for k, v in cond.items() if k != "model_conds"}
        out["model_conds"] = {k: v._copy_with(thaw(v.cond)) for k, v in cond.get("model_conds", {}).items()}
        return out

    return {name: [entry(c) for c in group] for name, group in conds.items()}


class OutOfPlace(TorchFunctionMode):
    """Inside, `x += y` makes a new tensor where autograd may still need the old one.

    Some of the host's networks save memory by overwriting: a ControlNet is added into the UNet's
    activations, Flux adds into its stream. Autograd refuses to go back through that. The name (or the slice)
    on the left is bound to the result either way.
    """

    NEW: ClassVar = {Tensor.add_: torch.add, Tensor.sub_: torch.sub, Tensor.mul_: torch.mul}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.NEW and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            func = self.NEW[func]
        return func(*args, **(kwargs or {}))


def overwritten(error: RuntimeError) -> bool:
    """Whether autograd stopped because the network overwrote what the way back needs."""
    return "inplace operation" in str(error)


def _out_of_place(executor, *args, **kwargs):
    with OutOfPlace():
        return executor(*args, **kwargs)


def gradient_options(model_options: dict, out_of_place: bool = False) -> dict:
    """The run's options with an attention back end that has a backward; `out_of_place`: see OutOfPlace."""
    options = {**model_options, "transformer_options": {**model_options.get("transformer_options", {})}}
    if out_of_place:
        given = options["transformer_options"].get("wrappers", {})
        options["transformer_options"]["wrappers"] = {kind: {**held} for kind, held in given.items()}
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, _out_of_place, options, is_model_options=True
        )
    if attention_pytorch is not None:
        options["transformer_options"].setdefault(
            "optimized_attention_override", lambda _original, *args, **kwargs: attention_pytorch(*args, **kwargs)
        )
    return options
