"""Other authors' mitigations at inference time, in the benchmark's own harness. Both change the prompt.

- Random token addition: Somepalli et al., *Understanding and Mitigating Copying in Diffusion Models*, NeurIPS 2023,
  arXiv 2305.20086. Some random tokens are inserted into the prompt at random places.
- Prompt-embedding adjustment: Wen et al., *Detecting, Explaining, and Mitigating Memorization in Diffusion Models*,
  ICLR 2024, arXiv 2407.21720. Gradient steps move the embedding until the guidance magnitude at the first step is
  small.
"""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import Checkpoint

Conditioning = Callable[[Checkpoint, list[str], int], list]


def random_tokens(count: int) -> Conditioning:
    """Each prompt with `count` random words of the lab's vocabulary at random places."""

    def conditioning(checkpoint: Checkpoint, texts: list[str], seed: int) -> list:
        from support.lab_pack.arch import LAB512

        known = (w.removesuffix("</w>") for w in LAB512.vocabulary() if w.endswith("</w>"))
        words = sorted(w for w in known if len(w) > 2)
        draw = random.Random(1000 * seed + count)
        longer = []
        for text in texts:
            parts = text.split()
            for _ in range(count):
                parts.insert(draw.randint(0, len(parts)), draw.choice(words))
            longer.append(" ".join(parts))
        return checkpoint.encode(longer)

    return conditioning


def adjusted_embedding(target: float, most: int, rate: float = 0.05) -> Conditioning:
    """The prompts' embedding moved by AdamW, each sample until its d/√dim at the first step is at most `target`.

    `rate` is the authors' learning rate, relative to the embedding's own scale; theirs are `most` = 10 steps.
    """

    def conditioning(checkpoint: Checkpoint, texts: list[str], seed: int) -> list:
        sampling, schedule = checkpoint.module("adapter.sampling"), checkpoint.module("adapter.schedule")
        maths = checkpoint.module("mitigation.prediction")
        side = checkpoint.plan.size // 8
        latent = torch.zeros(len(texts), 4, side, side)

        def body(pair: Any, noise: Tensor) -> Tensor:
            goal = target * maths.dimension(noise) ** 0.5 * pair.eps_unit
            return pair.with_gradients(lambda: _descend(pair, maths, goal, most, rate))

        with torch.inference_mode():
            inputs = sampling.SamplingInputs(
                model=checkpoint.model,
                positive=checkpoint.given["positive"],
                negative=checkpoint.given["negative"],
                latent={"samples": latent},
                noise=checkpoint.module("adapter.noise").drawn_noise(latent, seed, None),
                sigmas=schedule.one_step_schedule(checkpoint.model, None, "peer"),
                seed=seed,
                node="Prompt-embedding adjustment",
            )
            found = checkpoint.module("adapter.two_predictions").run_in_sampling_scope(body, inputs)
        return [[found.cpu(), {}]]

    return conditioning


def _descend(pair: Any, maths: Any, goal: Any, most: int, rate: float) -> Tensor:
    """At most `most` steps of AdamW on each sample's embedding, until its guidance magnitude reaches the goal."""
    (entry,) = pair.conds["positive"]
    held = entry["model_conds"]["c_crossattn"]
    embedding = held.cond.detach().clone()
    rows = [row.clone().requires_grad_(True) for row in embedding.split(1)]
    optimizer = torch.optim.AdamW(rows, lr=rate * float(embedding.std()))
    for _ in range(most):
        moved = held._copy_with(torch.cat(rows))
        place = {**entry, "model_conds": {**entry["model_conds"], "c_crossattn": moved}}
        pair.conds = {**pair.conds, "positive": [place]}
        d = maths.guidance_magnitude(pair.prediction(pair.noise))
        above = d > goal
        if not above.any():
            break
        optimizer.zero_grad()
        d[above].sum().backward()
        for row, wanted in zip(rows, above.tolist(), strict=True):
            row.grad = row.grad if wanted else None
        optimizer.step()
    return torch.cat([row.detach() for row in rows])
