"""How hard a prompt pulls at the first step, which of its words do it, and whether other wordings pull less."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..adapter.conditioning import encode_text, stacked
from ..adapter.errors import check_finite
from ..adapter.long_work import progress
from ..adapter.sampling import SamplingInputs
from ..adapter.two_predictions import conditional_noise, parameterisation, run_in_sampling_scope
from ..mitigation.batch import norms
from ..mitigation.prediction import eps_unit, relative
from ..mitigation.prompt_words import PromptPulls, without_word, word_pulls, words_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP

AT_ONCE = 32  # texts in a batch, so that a long prompt shows progress and can be stopped


@dataclass(frozen=True)
class FirstStep:
    """What texts are measured with. `noise`: (N, ...)."""

    model: ModelPatcher
    clip: CLIP
    noise: Tensor
    sigmas: Tensor
    node: str

    def predictions(self, texts: list[str]) -> list[Tensor]:
        """ε̃ (N, ...) of each text against no text, in an EPS model's units.

        Only the first text is evaluated beside no text, the others alone: n texts cost half of n + 1 pairs.
        """
        first, *others = dict.fromkeys(texts)
        empty = encode_text(self.clip, "")
        (whole,), (null,) = self._denoised([encode_text(self.clip, first)], empty, alone=False)
        found, alike = {first: whole}, defaultdict(list)
        for text in others:
            conditioning = encode_text(self.clip, text)
            alike[tuple(conditioning[0][0].shape)].append((text, conditioning))  # longer prompts have more tokens
        parts = [group[i : i + AT_ONCE] for group in alike.values() for i in range(0, len(group), AT_ONCE)]
        bar = progress(len(parts))
        for done, part in enumerate(parts, start=1):
            denoised, _ = self._denoised([conditioning for _, conditioning in part], empty, alone=True)
            found |= {text: one for (text, _), one in zip(part, denoised, strict=True)}
            bar.update_absolute(done)
        sampling, sigma = self.model.get_model_object("model_sampling"), self.sigmas[:1]
        unit = eps_unit(float(sigma), *parameterisation(sampling))
        return [conditional_noise(sampling, found[text], null, sigma) / unit for text in texts]

    def _denoised(self, prompts: list[list], empty: list, alone: bool) -> list[Tensor]:
        """The denoised predictions (texts, N, ...) under the prompts, and under none of them unless `alone`."""
        each, texts = len(self.noise), len(prompts)
        noise = self.noise.repeat(texts, *[1] * (self.noise.ndim - 1))
        latent = {"samples": torch.zeros_like(noise)}
        run = SamplingInputs(self.model, stacked(prompts, each), empty, latent, noise, self.sigmas, 0, self.node)
        both = run_in_sampling_scope(lambda pair, noise: pair.denoised(noise, alone), run)
        return [check_finite(one.float().cpu(), self.node).unflatten(0, (texts, each)) for one in both]


def check_prompt(step: FirstStep, text: str, rewordings: list[str]) -> PromptPulls:
    """Measure a prompt, the prompt without each of its words, each word alone, and the rewordings."""
    words = words_of(text)
    left_out, alone = [without_word(text, word) for word in words], [text[slice(*word)] for word in words]
    whole, *others = step.predictions([text, *left_out, *alone, *rewordings])
    n = len(words)

    def pull(prediction: Tensor) -> float:
        return float(relative(norms(prediction), prediction[0].numel()).mean())

    return PromptPulls(
        text=text,
        words=words,
        pull=pull(whole),
        without=[pull(one) for one in others[:n]],
        shares=word_pulls(whole, torch.stack(others[:n]), torch.stack(others[n : 2 * n])).tolist() if words else [],
        rewordings=sorted((pull(one), other) for one, other in zip(others[2 * n :], rewordings, strict=True)),
    )
