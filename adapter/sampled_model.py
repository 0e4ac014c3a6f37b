"""The model that a run samples, with the patches that other nodes put on it behind ours."""

from __future__ import annotations

from enum import Enum
from types import FunctionType, MethodType
from typing import Any
from uuid import UUID

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from torch import Tensor

OURS = "memorization_guard"  # how the keys of our own wrappers begin, which leave a run that only measures alone
PLAIN = (str, bytes, int, float, Enum, UUID, torch.dtype, torch.device)
DEEPEST = 8


def model_of_run(guider: CFGGuider) -> ModelPatcher:
    """What a run samples, for a run of our own inside of it. A clone: runs register their hooks in their model."""
    return guider.model_patcher.clone()


def has_other_weights(guider: CFGGuider, model: ModelPatcher) -> bool:
    """Whether a run samples other weights than those of `model`, because of a LoRA that was added behind it."""
    return guider.model_patcher.patches_uuid != model.patches_uuid


class ModelFacts:
    """What a model's predictions depend on, without its weights."""

    def __init__(self, model: ModelPatcher) -> None:
        wrappers = {
            kind: {key: found for key, found in by_key.items() if found and not str(key).startswith(OURS)}
            for kind, by_key in model.wrappers.items()
        }
        self.facts = _copied(
            {
                "weights": model.patches_uuid,  # of the network and of the LoRAs on it
                "hooks": model.forced_hooks,
                "objects": model.object_patches,
                "options": model.model_options,
                "injections": model.injections,
                "wrappers": {kind: by_key for kind, by_key in wrappers.items() if by_key},
            }
        )

    def fit(self, other: ModelFacts) -> bool:
        """Whether two models make the same predictions, as far as can be told: False where it is not known."""
        return _same(self.facts, other.facts)


def _copied(value: Any) -> Any:
    """The same parts in containers of our own, so that a change in place is noticed."""
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list) else value


def _same(a: Any, b: Any, depth: int = 0) -> bool:
    """Whether two parts are equal. False for two functions: the values that they hold may differ.

    A clone of a model has copies of the objects in its options, but the same functions.
    """
    if a is b:
        return True
    if type(a) is not type(b) or isinstance(a, FunctionType) or depth > DEEPEST:
        return False
    if isinstance(a, Tensor):
        return a.device == b.device and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[name], b[name], depth + 1) for name in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y, depth + 1) for x, y in zip(a, b, strict=True))
    if isinstance(a, MethodType):
        return a.__func__ is b.__func__ and _same(a.__self__, b.__self__, depth + 1)
    if isinstance(a, PLAIN):
        return a == b
    return bool(getattr(a, "__dict__", None)) and _same(vars(a), vars(b), depth + 1)
