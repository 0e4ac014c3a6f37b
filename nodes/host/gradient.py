"""Gradients through a model in a host that runs everything under inference mode.

Checkpoints are loaded under `torch.inference_mode()`, so every weight is an inference tensor, which
autograd refuses to save. Here each one is replaced, for the duration of a block, by a normal tensor
on the same storage: no copy, no other bytes, and the very same objects are back afterwards. A weight
whose storage cannot be shared is copied for each use instead, by an identity `weight_function`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import comfy.model_management
import torch
from torch import Tensor, nn

from .errors import GuardError

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
        alias = _alias(held)
    except (RuntimeError, NotImplementedError):
        functions = getattr(part, f"{name}_function", None)
        if not isinstance(functions, list):
            raise
        functions.append(_same)  # the host copies a weight that has a function, and the copy is a normal tensor
        undo.callback(functions.remove, _same)
        return
    table[name] = alias
    undo.callback(_put_back, table, name, held, alias)


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


def gradient_options(model_options: dict) -> dict:
    """The run's options with an attention back end that has a backward."""
    options = {**model_options, "transformer_options": {**model_options.get("transformer_options", {})}}
    if attention_pytorch is not None:
        options["transformer_options"].setdefault(
            "optimized_attention_override", lambda _original, *args, **kwargs: attention_pytorch(*args, **kwargs)
        )
    return options
