"""Predictions for captions that the host was not asked to sample with.

Every duplicated caption is encoded when the model is patched and becomes a condition of the run under a
key of its own, so that the host processes it with the others. A batch may need another caption in every
row: rows of equal shape are one condition and one evaluation.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import comfy.conds
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...adapter.memory import retry_with_less
from ...mitigation.amg.guidance import only

OWN = ("cross_attn", "pooled_output", "model_conds", "uuid")  # what the caption brings itself
PLACE = ("area", "mask", "strength", "start_percent", "end_percent", "set_area_to_bounds", "mask_strength", "default")


def encode(clip, texts: Sequence[str]) -> list[list]:
    """CONDITIONING of every text, as CLIPTextEncode makes it (the pooled output stays with it)."""
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]


def with_prompt_settings(conditioning: list, positive: list[dict]) -> list[dict]:
    """The caption's condition with all that goes with the prompt: ControlNet, picture size, inpainting latents.

    Only then the difference to the unconditional prediction is the caption's doing alone. Areas, masks
    and time ranges stay with the prompt: the caption holds everywhere. `positive` and the result are
    the host's converted conditions, before it processes them for a run.
    """
    own, *_ = comfy.sampler_helpers.convert_cond(conditioning)
    kept = {k: v for k, v in (positive[0] if positive else {}).items() if k not in (*OWN, *PLACE)}
    return [{**kept, **own, "prompt_type": "positive", "model_conds": {}, "uuid": uuid.uuid4()}]


def merge_rows(conds: Sequence[list[dict]]) -> list[dict] | None:
    """One processed condition whose row b is that of conds[b], or None where they do not fit into one."""
    first = conds[0][0]
    merged: dict[str, comfy.conds.CONDRegular] = {}
    for name, held in first["model_conds"].items():
        parts = [getattr(c[0]["model_conds"].get(name), "cond", None) for c in conds]
        if not isinstance(held.cond, Tensor):
            if any(p is None or p != held.cond for p in parts):
                return None
            merged[name] = held
        elif all(p is held.cond for p in parts) or isinstance(held, comfy.conds.CONDNoiseShape):
            merged[name] = held  # goes with the run, not with the caption
        else:
            rows = [p for p in parts if isinstance(p, Tensor) and p.shape == held.cond.shape and len(p) == 1]
            if len(rows) < len(parts):
                return None
            merged[name] = held._copy_with(torch.cat(rows))
    return [{**first, "model_conds": merged, "uuid": uuid.uuid4()}]


class CaptionPredictions:
    """One run's predictions for captions, inside the batch that is evaluated anyway where possible.

    Which caption a sample needs is known only after its prediction, and it rarely changes from one
    evaluation to the next: so the last one's captions go along, and only a change costs a call.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.expected: list[int | None] = []  # what the last evaluation needed, (B,) or empty
        self.waiting: list[dict] | None = None  # goes into the next batch of this shape
        self.shape: torch.Size | None = None
        self.brought: Tensor | None = None
        self.crowded = False  # the host's batch runs out of memory with captions in it: they are asked alone

    def go_along(self, guider, x: Tensor) -> None:
        """Be part of the coming batched evaluation of x."""
        self.brought, self.shape = None, x.shape
        fits = len(self.expected) == len(x) and not self.crowded
        self.waiting = self._together(guider, self.expected) if fits else None

    def stay(self) -> None:
        """Be part of no further batch, and forget what was brought."""
        self.waiting = self.brought = None

    def join(self, executor, model, conds: list, x: Tensor, timestep: Tensor, model_options: dict) -> list[Tensor]:
        """The host's batched evaluation, with the waiting captions in it."""
        if self.waiting is None or x.shape != self.shape:
            return executor(model, conds, x, timestep, model_options)
        along, self.waiting = self.waiting, None

        def together() -> list[Tensor]:
            *out, self.brought = executor(model, [*conds, along], x, timestep, model_options)
            return out

        def apart() -> list[Tensor]:
            self.crowded = True
            return executor(model, conds, x, timestep, model_options)

        return retry_with_less(together, apart)

    def prediction(self, guider, wanted: list[int | None], x, timestep, model_options: dict) -> Tensor | None:
        """D(x_t, y_N) (B, ...): what was brought along, else evaluated now. Rows without a caption mean nothing."""
        if all(w is None for w in wanted):
            return None
        if self.brought is not None and all(w in (None, e) for w, e in zip(wanted, self.expected, strict=True)):
            return self.brought
        together = self._together(guider, wanted)
        if together is not None:
            return comfy.samplers.calc_cond_batch(guider.inner_model, [together], x, timestep, model_options)[0]
        out = torch.zeros_like(x)
        for caption in sorted({w for w in wanted if w is not None}):  # captions of different lengths
            rows = torch.tensor([w == caption for w in wanted], device=x.device)
            cond = guider.conds[f"{self.key}_{caption}"]
            one = comfy.samplers.calc_cond_batch(guider.inner_model, [cond], x, timestep, model_options)[0]
            out = only(rows, one, out)
        return out

    def _together(self, guider, captions: list[int | None]) -> list[dict] | None:
        """One condition with a row a sample; samples without a caption get some other sample's."""
        some = next((c for c in captions if c is not None), None)
        if some is None:
            return None
        return merge_rows([guider.conds[f"{self.key}_{some if c is None else c}"] for c in captions])
