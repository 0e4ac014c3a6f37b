"""The processed conditions of some samples of a batch.

The host repeats or cuts a condition to fit the batch: without this choice of rows, dropping samples from a batch would
give one sample the condition of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import comfy.controlnet
import comfy.hooks
import comfy.utils
from comfy.controlnet import ControlBase
from torch import Tensor

from ..mitigation.batch import broadcast

Conds = dict[str, list[dict]]
Options = dict[str, Any]  # the host's model_options
SomeConds = Mapping[str, list[dict] | None]  # None: a branch that is not asked for


def rows_of(conds: SomeConds, rows: Tensor, batch: int) -> dict:
    """The conditions of the samples `rows` (n,), taken from `conds` of a batch of `batch` samples."""

    def pick(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] > 1:
            return comfy.utils.repeat_to_batch_size(value, batch)[rows.to(value.device)]
        return [pick(v) for v in value] if isinstance(value, list) else value

    def entry(cond: dict) -> dict:
        model_conds = {k: v._copy_with(pick(v.cond)) for k, v in cond.get("model_conds", {}).items()}
        mask = {"mask": pick(cond["mask"])} if "mask" in cond else {}
        strength = {"strength": pick(cond["strength"])} if "strength" in cond else {}  # of `choose_prompts`
        return {**cond, **mask, **strength, "model_conds": model_conds}

    return {name: None if group is None else [entry(c) for c in group] for name, group in conds.items()}


def choose_prompts(rows: Tensor, chosen: list[dict], others: list[dict], x: Tensor) -> list[dict]:
    """Processed conditions for x (B, ...): `chosen` for the samples where `rows` (B,) is set, `others` for the rest.

    The host weights each condition by its strength, which may differ from sample to sample. So prompts of different
    lengths, areas or ControlNets can share a batch.
    """
    if chosen is others or rows.all():
        return chosen
    if not rows.any():
        return others

    def weighted(conds: list[dict], which: Tensor) -> list[dict]:
        weight = broadcast(which.float(), x)
        return [{**cond, "strength": cond.get("strength", 1.0) * weight} for cond in conds]

    return [*weighted(chosen, rows), *weighted(others, ~rows)]


def can_drop_rows(conds: SomeConds, options: Options) -> bool:
    """False when something matches the samples of a batch by their places, so that all must be evaluated together.

    A model can take the samples for the frames of a video, as SVD does. A ControlNet can have a hint image for each
    sample, another pack's a strength or a mask as well, as in Advanced-ControlNet. A patch inside the network can have
    an image or a mask, also one that comes as a hook of a prompt, as in attention couple. Nobody can tell from outside
    whether it has.
    """
    nets = list(controls(conds))
    counted = any(type(net).__module__ != comfy.controlnet.__name__ for net in nets)
    hints = (getattr(net, "cond_hint_original", None) for net in nets)
    hooks = [
        hook for group in conds.values() for cond in group or () for hook in getattr(cond.get("hooks"), "hooks", ())
    ]
    counted |= any("num_video_frames" in c.get("model_conds", {}) for group in conds.values() for c in group or ())
    counted |= any(hook.hook_type != comfy.hooks.EnumHookType.Weight for hook in hooks)
    inside = options.get("transformer_options", {})
    patches = [inside.get("patches"), inside.get("patches_replace")]
    patches += [inside.get("wrappers", {}).get(kind) for kind in ("diffusion_model", "apply_model")]
    return not (any(patches) or counted or any(isinstance(hint, Tensor) and hint.shape[0] > 1 for hint in hints))


def controls(conds: SomeConds) -> Iterator[ControlBase]:
    """Every ControlNet that a condition uses, with those chained before it."""
    for group in conds.values():
        for cond in group or ():
            control = cond.get("control")
            while control is not None:
                yield control
                control = getattr(control, "previous_controlnet", None)
