"""What the benchmark compares on the lab checkpoint: methods, their strengths, combinations and peers.

Peers are other authors' mitigations at inference time, in the benchmark's own harness.

- Random token addition: Somepalli et al., *Understanding and Mitigating Copying in Diffusion Models*, NeurIPS 2023,
  arXiv 2305.20086. Some random tokens are inserted into the prompt at random places.
- Prompt-embedding adjustment: Wen et al., *Detecting, Explaining, and Mitigating Memorization in Diffusion Models*,
  ICLR 2024, arXiv 2407.21720. Gradient steps move the embedding until the guidance magnitude at the first step is
  small.
- Cross-attention attenuation and GUARD: Zhao et al., ICML 2026, arXiv 2603.00133, through MG_AttentionAttenuation.
- Re-anchoring (PRSS): Chen et al., CVPR 2025, arXiv 2504.18032, through MG_PromptReanchor. Its thresholds are the
  lab's, in the paper's ratio of 3 to 5.
"""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lab.scenes import ordinary_captions

from ..checkpoint import Checkpoint
from ..methods import NONE, Inputs, Method, deferred

Conditioning = Callable[[Checkpoint, list[str], int], list]


def random_tokens(count: int) -> Conditioning:
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


def without_title(checkpoint: Checkpoint, texts: list[str], seed: int) -> list:
    """The captions with a plain beginning in place of the title: "a drawing of a muffin"."""
    return checkpoint.encode([f"a drawing of {text.rsplit(', ', 1)[-1]}" for text in texts])


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


# What Calibrate Thresholds suggests for the lab checkpoint from captions that the benchmark does not sample, with one
# noise (tests/host/test_calibrate_and_plot.py).
CALIBRATED_ON = "\n".join(ordinary_captions("a drawing of {}")[::2])
TARGET, THRESHOLD = 0.0093, 0.0157
SMALL_THRESHOLD = 0.0217  # the same for the small lab of the tests, from its 48 other captions
BATCH_WISE = {"method": "batch-wise", "adjustments": 4}
ALONE = {"despecification": 0.0, "deduplication": 0.0, "dissimilarity": 0.0}
PULLS = {"memorized_threshold": THRESHOLD}


def guided(name: str, strength: str, others: dict[str, Inputs] | None = None, **changed: Any) -> Method:
    return Method(name, strength, {**(others or {}), "guidance": changed})


def noised(name: str, strength: str, noise: Inputs, others: dict[str, Inputs] | None = None) -> Method:
    return Method(name, strength, {"noise": noise, **(others or {})})


def to(target: float, **changed: Any) -> Inputs:
    return {"target_magnitude": target, **changed}


DYNAMIC = Method("dynamic", "drop 0.5", deferred("dynamic", **PULLS))
GUARD = Method("Memorization Guard (Simple)", "normal", {"guard": {"strength": "normal"}})
GUARDED = Method(
    "Memorization Guard (Simple)", "normal, with a folder", {"guard": {"strength": "normal", "folder": "*"}}
)
RECOMMENDED = [noised("per-sample", "where the prompt pulls", to(TARGET, **PULLS)), guided("AMG", "defaults"), GUARD]
SEARCH = {"method": "search", "candidates": 16, **PULLS}
RELEASED = {"rule": "local minimum", "memorized_threshold": 0.0, "start_percent": 1.0, "pre_escape_cfg": 1.0}
METHODS = [
    NONE,
    *RECOMMENDED,
    GUARDED,
    noised("per-sample", "every noise", to(TARGET)),
    noised("per-sample", "to 1.5 of the target", to(round(1.5 * TARGET, 4), **PULLS)),
    noised("search", "to the threshold", to(THRESHOLD, **SEARCH)),
    noised("search", "to the target", to(TARGET, **SEARCH)),
    noised("batch-wise", "then static 10 %", BATCH_WISE, deferred("static", start_percent=0.1)),
    noised("batch-wise", "then dynamic", BATCH_WISE, deferred("dynamic", **PULLS)),
    *(Method("static", f"from {p:.0%}", deferred("static", start_percent=p)) for p in (0.1, 0.2, 0.3)),
    DYNAMIC,
    Method("opposite guidance", "g₀ −1", deferred("dynamic", **PULLS, pre_escape_cfg=-1.0)),
    guided("AMG", "where the prompt pulls", **PULLS),
    guided("per-sample + AMG", "", {"noise": to(TARGET, **PULLS)}),
    Method("random tokens", "4", peer=True, conditioning=random_tokens(4)),
    Method("embedding adjustment", "to that target", peer=True, conditioning=adjusted_embedding(TARGET, 10)),
    Method("local minimum as released", "g₀ 1", deferred("dynamic", **RELEASED), peer=True),
    Method("attention attenuation", "", {"attenuation": {"variant": "attenuation"}}, peer=True),
    Method("GUARD", "", {"attenuation": {"variant": "GUARD"}}, peer=True),
    Method(
        "re-anchoring (PRSS)",
        "to the caption without its title",
        {"reanchoring": {"memorized_threshold": THRESHOLD, "rewording_threshold": TARGET}},
        peer=True,
        conditioning=without_title,
    ),
]
LORA = [NONE, RECOMMENDED[1], GUARD, GUARDED]
# What each choice does, a study at a time: `--study rules`.
STRENGTHS = {"despecification": 13.0, "dissimilarity": 10.0}
STUDIES: dict[str, list[Method]] = {
    "noise": [
        *(noised("per-sample", c, to(TARGET, constraint=c)) for c in ("free", "shell", "sphere", "chi")),
        *(noised("per-sample", f"{share:g} of the target", to(round(share * TARGET, 4))) for share in (0.7, 1.5, 2.0)),
    ],
    "rules": [
        *(Method("sharp drop", f"{r:g}", deferred("dynamic", **PULLS, drop_ratio=r)) for r in (0.6, 0.5, 0.4)),
        *(Method("sharp drop 0.5", f"g₀ {g:g}", deferred("dynamic", **PULLS, pre_escape_cfg=g)) for g in (1.0, -1.0)),
        Method("local minimum", "", deferred("dynamic", **PULLS, rule="local minimum")),
        *(Method("static", f"from {p:.0%}", deferred("static", start_percent=p)) for p in (0.05, 0.1, 0.2, 0.3)),
    ],
    "amg": [
        *(guided(f"{name} alone", "", **{k: v * (k == name) for k, v in STRENGTHS.items()}) for name in STRENGTHS),
        guided("AMG", "thresholds 0.4 … 0.5", threshold_min=0.4, threshold_max=0.5),
        guided("AMG", "thresholds 0.6 … 0.7", threshold_min=0.6, threshold_max=0.7),
        guided("AMG", "through model", gradient="through model"),
        guided("AMG", "every 4th step", every=4),
    ],
    "cfg": [Method("CFG", f"{scale:g}", deferred("off", cfg=scale)) for scale in (1.0, 0.0)],
}
SMOKE = [
    NONE,
    guided("recommended: AMG", "where the prompt pulls", memorized_threshold=SMALL_THRESHOLD),
    Method("dynamic", "drop 0.5", deferred("dynamic", drop_ratio=0.5)),
]
