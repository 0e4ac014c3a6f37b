"""Predictions under the duplicated captions, which the sampler itself does not ask for.

Each duplicated caption is encoded when the model is patched and becomes a condition of the run under a key
of its own, so that the host processes it with the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...adapter.conditioning import merge_rows, with_settings_of
from ...adapter.model_call import PartwiseCall, SamplerCall
from ...mitigation.batch import replace_samples

if TYPE_CHECKING:
    from comfy.samplers import CFGGuider

Captions = list[int | None]  # (B,) number of the caption of each sample, None where it has none


class CaptionPredictions:
    """One run's evaluations of its captions. `key` must be unused by other patches of the model."""

    def __init__(self, key: str, encoded: tuple[list, ...], guider: CFGGuider) -> None:
        self.key = key
        self.parts = PartwiseCall()
        for i, conditioning in enumerate(encoded):
            positive = guider.conds.get("positive", [])
            guider.conds[f"{key}_{i}"] = with_settings_of(positive, conditioning)

    def predict(self, call: SamplerCall, captions: Captions) -> Tensor:
        """D(x_t, y_N) (B, ...). Rows without a caption hold values without meaning."""
        texts = {c: call.guider.conds[f"{self.key}_{c}"] for c in captions if c is not None}
        any_text = next(iter(texts.values()))
        together = merge_rows([any_text if c is None else texts[c] for c in captions])
        if together is not None:
            return self._ask(call, together)
        out = torch.zeros_like(call.x)
        for caption, cond in texts.items():  # captions of different lengths
            rows = torch.tensor([c == caption for c in captions], device=call.x.device)
            out = replace_samples(rows, self._ask(call, cond), out)
        return out

    def _ask(self, call: SamplerCall, cond: list[dict]) -> Tensor:
        """In the host's own shape, a prompt and no negative: adapters and step caches count on two entries."""
        model = call.guider.inner_model
        return self.parts.predictions(model, cond, None, call.x, call.sigma, call.options)[0]
