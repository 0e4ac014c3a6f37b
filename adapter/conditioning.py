"""Conditioning in the host's forms: from text, as a guider keeps it, and beside the conditions of a run."""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Sequence
from typing import Any

import comfy.conds
import comfy.sampler_helpers
import torch
from comfy.sd import CLIP
from torch import Tensor

OF_TEXT = {"cross_attn", "pooled_output", "model_conds", "uuid"}
OF_AREA = {"area", "mask", "strength", "start_percent", "end_percent", "set_area_to_bounds", "mask_strength", "default"}


def encode_text(clip: CLIP, text: str) -> list:
    """CONDITIONING, as the host's CLIP Text Encode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def encode_caption(clip: CLIP, text: str) -> list:
    """CONDITIONING of a caption as trainers read it: all of it is text."""
    return clip.encode_from_tokens_scheduled(caption_tokens(clip, text))


def stacked(conditionings: list[list], each: int) -> list:
    """One CONDITIONING for a batch with `each` samples for each of these, which have tensors of the same shapes."""

    def rows(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.repeat_interleave(each, dim=0) for part in parts])

    first = conditionings[0][0]
    more = {
        name: rows([one[0][1][name] for one in conditionings]) if isinstance(value, Tensor) else value
        for name, value in first[1].items()
    }
    return [[rows([one[0][0] for one in conditionings]), more]]


def caption_tokens(clip: CLIP, text: str) -> dict[str, Any]:
    """The tokens of a caption: its parentheses are no prompt weights, and it names no embedding file."""
    return _without_embeddings(clip).tokenize(unweighted(text.replace("\0", "")))


def unweighted(text: str) -> str:
    """A prompt for the host whose tokens are those of `text`, with its parentheses and backslashes.

    The host takes one backslash from each parenthesis that has one, also where the tokenizer knows no weights. So one
    more before each of them leaves "miku \\(vocaloid\\)" as it was, too.
    """
    return re.sub(r"([()])", r"\\\1", text)


def _without_embeddings(reader: Any) -> Any:
    """A copy of a CLIP or a tokenizer, and of the tokenizers in it, that takes no text for the name of an embedding.

    It is no clip.clone(), which would make a patcher as well.
    """
    twin = copy.copy(reader)
    for name, part in vars(reader).items():
        if hasattr(part, "tokenize_with_weights"):
            setattr(twin, name, _without_embeddings(part))
    if hasattr(reader, "embedding_identifier"):
        twin.embedding_identifier = "\0"  # what the text is searched for
    return twin


def is_same_text(conds: list[dict] | None, conditioning: list) -> bool:
    """Whether the conditions of a guider are those of this CONDITIONING alone, such as the empty prompt."""
    if conds is None or len(conds) != 1 or len(conditioning) != 1:
        return False
    asked, text = conds[0].get("cross_attn"), conditioning[0][0]
    return isinstance(asked, Tensor) and asked.shape == text.shape and torch.equal(asked, text.to(asked))


def with_settings_of(prompt: list[dict] | None, conditioning: list, kind: str = "positive") -> list[dict]:
    """A text's condition with a prompt's ControlNet, image size, reference images and inpainting latents.

    Otherwise the difference between the two predictions would not be the text's alone. Areas, masks and time ranges
    are left out, because the text applies everywhere. `prompt` and the result are not processed for a run yet.
    """
    text, *_ = comfy.sampler_helpers.convert_cond(conditioning)
    settings = {k: v for k, v in (prompt[0] if prompt else {}).items() if k not in OF_TEXT | OF_AREA}
    return [{**settings, **text, "prompt_type": kind, "model_conds": {}, "uuid": uuid.uuid4()}]


def merge_rows(conds: Sequence[list[dict]]) -> list[dict] | None:
    """One processed condition whose row b is that of conds[b], or None if their shapes differ."""
    first = conds[0][0]
    merged: dict[str, comfy.conds.CONDRegular] = {}
    for name, held in first["model_conds"].items():
        parts = [getattr(c[0]["model_conds"].get(name), "cond", None) for c in conds]
        if not isinstance(held.cond, Tensor):
            if not all(_equal(part, held.cond) for part in parts):
                return None
            merged[name] = held
        elif all(p is held.cond for p in parts) or isinstance(held, comfy.conds.CONDNoiseShape):
            merged[name] = held  # belongs to the run, not to the text
        else:
            rows = [p for p in parts if isinstance(p, Tensor) and p.shape == held.cond.shape and len(p) == 1]
            if len(rows) < len(parts):
                return None
            merged[name] = held._copy_with(torch.cat(rows))
    return [{**first, "model_conds": merged, "uuid": uuid.uuid4()}]


def _equal(a: Any, b: Any) -> bool:
    """Whether two parts of conditions are the same: numbers, tensors, or lists of them, such as reference latents."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b
