"""Conditions for captions that the host was not asked to sample with: encoded at patch time, one row a sample."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import comfy.conds
import comfy.sampler_helpers
import torch

OWN = ("cross_attn", "pooled_output", "model_conds", "uuid")  # what the caption brings itself
PLACE = ("area", "mask", "strength", "start_percent", "end_percent", "set_area_to_bounds", "mask_strength", "default")


def encode(clip, texts: Sequence[str]) -> list[list]:
    """CONDITIONING of every text, as CLIPTextEncode makes it (the pooled output stays with it)."""
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]


def dressed(conditioning: list, positive: list[dict]) -> list[dict]:
    """The caption's condition with all that goes with the prompt: ControlNet, picture size, inpainting latents.

    Only then the difference to the unconditional prediction is the caption's doing alone. Areas, masks
    and time ranges stay with the prompt: the caption holds everywhere. `positive` and the result are
    the host's converted conditions, before it processes them for a run.
    """
    (own, *_) = comfy.sampler_helpers.convert_cond(conditioning)
    kept = {k: v for k, v in (positive[0] if positive else {}).items() if k not in (*OWN, *PLACE)}
    return [{**kept, **own, "prompt_type": "positive", "model_conds": {}, "uuid": uuid.uuid4()}]


def one_row_each(conds: Sequence[list[dict]]) -> list[dict] | None:
    """One processed condition whose row b is that of conds[b], or None where their shapes differ."""
    first = conds[0][0]
    merged: dict[str, comfy.conds.CONDRegular] = {}
    for name, held in first["model_conds"].items():
        parts = [c[0]["model_conds"].get(name) for c in conds]
        if all(p is held for p in parts):
            merged[name] = held
            continue
        rows = [getattr(p, "cond", None) for p in parts]
        if not all(isinstance(r, torch.Tensor) for r in rows):
            if not all(isinstance(p, type(held)) and p.cond == held.cond for p in parts):
                return None
            merged[name] = held
            continue
        if isinstance(held, comfy.conds.CONDNoiseShape):  # goes with the run, not with the caption
            merged[name] = held
            continue
        if any(r.shape != rows[0].shape or len(r) != 1 for r in rows):
            return None
        merged[name] = held._copy_with(torch.cat(rows))
    return [{**first, "model_conds": merged, "uuid": uuid.uuid4()}]
