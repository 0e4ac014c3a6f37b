"""What others do against memorization at inference time, in the benchmark's own harness: they change the prompt.

- Random token addition: Somepalli et al., *Understanding and Mitigating Copying in Diffusion Models*, NeurIPS 2023,
  arXiv 2305.20086. Some random tokens go into the prompt at random places.
- Prompt-embedding adjustment: Wen et al., *Detecting, Explaining, and Mitigating Memorization in Diffusion Models*,
  ICLR 2024, arXiv 2407.21720. The embedding is moved by gradient until the guidance magnitude at the first
  step is small.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from support.lab_pack.arch import vocabulary


def random_tokens(clip: Any, captions: list[str], count: int, seed: int) -> list:
    """CONDITIONING of the captions, each with `count` random words of the vocabulary at random places."""
    words = sorted(w.removesuffix("</w>") for w in vocabulary() if w.endswith("</w>") and len(w) > len("a</w>") + 1)
    draw = random.Random(seed)
    texts = []
    for caption in captions:
        parts = caption.split()
        for _ in range(count):
            parts.insert(draw.randint(0, len(parts)), draw.choice(words))
        texts.append(" ".join(parts))
    return [[torch.cat([clip.encode_from_tokens(clip.tokenize(t)) for t in texts]), {}]]


def adjusted_embedding(
    host: Any, given: dict[str, Any], group: str, *, target: float, seed: int, rate: float = 0.05, most: int = 10
) -> list:
    """CONDITIONING of `group` moved by AdamW, each sample until its d/√dim at the first step is at or below `target`.

    `rate` and `most` are the authors': learning rate of AdamW, relative to the embedding's own scale, and steps.
    """
    probe = host.module("memorization_guard", "adapter.two_predictions")
    noises = host.module("memorization_guard", "adapter.noise")
    sampling = host.module("memorization_guard", "adapter.sampling")
    schedule = host.module("memorization_guard", "adapter.schedule")
    maths = host.module("memorization_guard", "mitigation.prediction")
    model, latent = given["model"], given["latent"]["samples"]

    def body(pair: Any, noise: Tensor) -> Tensor:
        goal = target * maths.dimension(noise) ** 0.5 * pair.eps_unit

        def descend() -> Tensor:
            (entry,) = pair.conds["positive"]
            held = entry["model_conds"]["c_crossattn"]
            embedding = held.cond.detach().clone()
            scale = float(embedding.std())
            rows = [row.clone().requires_grad_(True) for row in embedding.split(1)]
            optimizer = torch.optim.AdamW(rows, lr=rate * scale)
            for _ in range(most):
                moved = held._copy_with(torch.cat(rows))
                place = {**entry, "model_conds": {**entry["model_conds"], "c_crossattn": moved}}
                pair.conds = {**pair.conds, "positive": [place]}
                d = maths.guidance_magnitude(pair.prediction(pair.noise))
                open_ = d > goal
                if not open_.any():
                    break
                optimizer.zero_grad()
                d[open_].sum().backward()
                for row, wanted in zip(rows, open_.tolist(), strict=True):
                    row.grad = row.grad if wanted else None
                optimizer.step()
            return torch.cat([row.detach() for row in rows])

        return pair.with_gradients(descend)

    with torch.inference_mode():
        inputs = sampling.SamplingInputs(
            model=model,
            positive=given[group],
            negative=given["null"],
            latent=given["latent"],
            noise=noises.drawn_noise(latent, seed),
            sigmas=schedule.one_step_schedule(model, None, "peer"),
            seed=seed,
            node="Prompt-embedding adjustment",
        )
        found = probe.run_in_sampling_scope(body, inputs)
    return [[found.cpu(), {}]]
