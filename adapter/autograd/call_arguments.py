"""The conditions and options of a model call, made fit for autograd."""

from __future__ import annotations

from typing import Any

import comfy.ldm.modules.attention
from torch import Tensor

from ..batch_rows import Conds
from ..step_caches import Options, without_step_caches
from .careful_operations import clone_if_inference

# The attention whose backward pass always works. Without it, the model keeps its own.
attention_pytorch = getattr(comfy.ldm.modules.attention, "attention_pytorch", None)


def conds_for_autograd(conds: Conds) -> Conds:
    """Processed conditions without inference tensors. Call it outside inference mode."""

    def normal(value: Any) -> Any:
        if isinstance(value, Tensor):
            return clone_if_inference(value)
        return [normal(v) for v in value] if isinstance(value, list) else value

    def entry(cond: dict) -> dict:
        out = {k: normal(v) for k, v in cond.items() if k != "model_conds"}
        out["model_conds"] = {k: v._copy_with(normal(v.cond)) for k, v in cond.get("model_conds", {}).items()}
        return out

    return {name: [entry(c) for c in group] for name, group in conds.items()}


def options_for_autograd(model_options: Options) -> Options:
    """The run's options without step caches, and with an attention that has a backward pass."""
    options = without_step_caches(model_options)
    if attention_pytorch is not None:
        options["transformer_options"].setdefault(
            "optimized_attention_override", lambda _original, *args, **kwargs: attention_pytorch(*args, **kwargs)
        )
    return options
