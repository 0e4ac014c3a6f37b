"""The cross-attention of UNets: the keys of its down and middle blocks, for the prompt's rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.ldm.modules import attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .errors import GuardError

Change = Callable[[Tensor, Tensor], Tensor]  # queries (n, heads, N, dim), keys (n, heads, T, dim) -> keys
PROMPT = 0  # place of the prompt in the host's `cond_or_uncond`
PLAIN = "memorization_guard_plain"  # in an evaluation's transformer_options: it leaves the keys alone


def change_keys(model: ModelPatcher, change: Change, node: str) -> ModelPatcher:
    """A clone of `model` whose keys of the prompt's rows are changed before each of these blocks attends to them."""
    blocks = list(_blocks(model))
    if not blocks:
        raise GuardError(
            f"{node}: `model` has no cross-attention blocks like those of SD 1.x, SD 2.x and SDXL. Remove this node "
            "from the workflow."
        )
    patched = model.clone()
    others = patched.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    for block in blocks:
        patched.set_model_attn2_replace(_replacement(change, others.get(block) or others.get(block[:2])), *block)
    return patched


def _blocks(model: ModelPatcher) -> list[tuple]:
    """(name, number, index) of each cross-attention in the down and middle blocks of a UNet."""
    unet = model.model.diffusion_model
    parts = [("input", i, part) for i, part in enumerate(getattr(unet, "input_blocks", ()))]
    parts += [("middle", 0, part) for part in [getattr(unet, "middle_block", None)] if part is not None]
    found = []
    for name, number, part in parts:
        layers = [m for m in part.modules() if isinstance(m, attention.BasicTransformerBlock)]
        found += [(name, number, i) for i, layer in enumerate(layers) if layer.attn2 is not None]
    return found


def _replacement(change: Change, other: Callable | None) -> Callable:
    """What the host calls in place of attention; `other`, an earlier one, gets the changed keys."""

    def attend(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        places = options.get("cond_or_uncond", ())
        if PROMPT in places and not options.get(PLAIN):
            heads, rows = options["n_heads"], len(q) // len(places)
            asked = [i * rows + j for i, place in enumerate(places) if place == PROMPT for j in range(rows)]
            which = torch.tensor(asked, device=k.device)
            mine, own = (t[which].unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
            k = k.index_copy(0, which, change(mine, own).transpose(1, 2).flatten(2))
        if other is not None:
            return other(q, k, v, options)
        more = {"transformer_options": options} if "optimized_attention_override" in options else {}
        precision = options.get("attn_precision")
        return attention.optimized_attention(q, k, v, options["n_heads"], attn_precision=precision, **more)

    return attend


def left_alone(options: dict[str, Any]) -> dict[str, Any]:
    """The options for an evaluation of the model as it was."""
    return {**options, "transformer_options": {**options.get("transformer_options", {}), PLAIN: True}}
