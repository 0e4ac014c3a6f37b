"""The five ways in which this pack samples, on a model that a node of the host patched.

Each runs, or refuses in a sentence of its own; changes no bit at a strength of zero; and gives a batch what its
samples get alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from support.executor import Host, NodeError
from support.graphs import references
from support.graphs.checkpoint import NO_BASIN
from support.graphs.words import Prompt, Words

LINKS = {"model": ["p", 0], "positive": ["both", 0], "negative": ["null", 0], "latent_image": ["some", 0]}
AS_ALONE = 1e-4  # see `apart`
Deferrals = dict[str, tuple[str, dict[str, Any]]]  # name -> mode and other inputs
OPPOSITE: Deferrals = {"opposite guidance": ("dynamic", {"pre_escape_cfg": -2.0})}
ACTIVE: Deferrals = {
    "no guidance": ("static", {"pre_escape_cfg": 0.0}),
    "no guidance of those in a basin": ("dynamic", {"pre_escape_cfg": 0.0}),
    "no negative": ("static", {"pre_escape_cfg": 1.0}),
    **OPPOSITE,
}
ZERO: Deferrals = {"off": ("off", {}), "no basin": ("dynamic", NO_BASIN)}
WHOLE: Deferrals = {"guided from the start": ("static", {"start_percent": 0.0})}
PART = "custom_"  # begins the names of nodes that are no ends
AMG = {"threshold_min": -1.0, "threshold_max": -1.0, "threshold_schedule": "constant", "clip": ["clip", 0]}


@dataclass(frozen=True)
class Bench:
    """A model that a node of the host patched, as `p`, and two prompts, of which each sample of a batch gets one."""

    host: Host
    given: dict[str, Any]
    prompts: list[list]
    latent: tuple[int, ...]
    cfg: float
    mask: Tensor | None  # (2, H, W) of what is painted
    steps: int  # the first without guidance, or with another, and the last with it
    rows: tuple[int, ...] = (0, 1)
    threshold: float = 0.0  # between the pulls of its two samples, so that one is in a basin
    vanilla: Tensor = field(default_factory=lambda: torch.empty(0))  # KSampler's samples
    idle: bool = False  # the patch does nothing to these
    each_alone: bool = False  # KSampler gives a batch what its samples get alone

    @property
    def words(self) -> Words:
        return Words(LINKS, {"steps": self.steps, "cfg": self.cfg})

    def run(self, rows: Sequence[int], given: dict[str, Any] | None = None, **more: Any) -> dict[str, list[Any]]:
        held = [self.prompts[i][0] for i in rows]
        together = {k: torch.cat([h[1][k] for h in held]) for k in held[0][1] if isinstance(held[0][1][k], Tensor)}
        latent = {"samples": torch.zeros(len(rows), *self.latent), "batch_index": list(rows)}
        if self.mask is not None:
            latent["noise_mask"] = self.mask[list(rows)]
        both = [[torch.cat([h[0] for h in held]), {**held[0][1], **together}]]
        return self.host.run(more, {**self.given, "both": both, "some": latent, **(given or {})})

    def deferrals(self, way: str, some: Deferrals) -> Prompt:
        nodes: Prompt = {}
        for n, (mode, changed) in some.items():
            own = {"memorized_threshold": self.threshold, "start_percent": 0.4, "mode": mode, **changed}
            if way == "sampler":
                nodes[n] = self.words.deferred(**own)
            elif way == "patch":
                nodes |= {PART + n: self.words.patch(**own), n: self.words.ksampler(model=[PART + n, 0])}
            else:
                *parts, (_, end) = self.words.custom([PART + n, 0]).items()
                nodes |= {**dict(parts), PART + n: self.words.guider(**own), n: end}
        return nodes


Way = Callable[[Bench], tuple[Prompt, Prompt]]  # at zero strength, at another; nodes named PART … are no ends


def _amg(bench: Bench) -> tuple[Prompt, Prompt]:
    def made(**strengths: dict[str, Any]) -> Prompt:
        nodes: Prompt = {PART + "refs": references("one")}
        for n, own in strengths.items():
            zero = {"despecification": 0.0, "deduplication": 0.0, "dissimilarity": 0.0}
            given = {**zero, **AMG, **own, "references": [PART + "refs", 0]}
            nodes[PART + n] = bench.words.amg(**given, memorized_threshold=bench.threshold)
            nodes[n] = bench.words.ksampler(model=[PART + n, 0])
        return nodes

    linear = {"despecification": 2.0, "deduplication": 2.0, "dissimilarity": 5.0}
    return made(zero={}), made(amg=linear, gradient={"dissimilarity": 5.0, "gradient": "through model"})


def _optimizer(bench: Bench) -> tuple[Prompt, Prompt]:
    make = lambda *a, **k: bench.words.optimizer(*a, **{"target_magnitude": 0.0, **k})  # noqa: E731
    zero = {
        "measured": make(max_iterations=0),
        "one candidate": make("search", candidates=1),
        "no adjustment": make("batch-wise", adjustment_strength=0.0),
    }
    active = {
        "per-sample": make(max_iterations=1, learning_rate=0.03),
        "search": make("search", candidates=2),
        "batch-wise": make("batch-wise", adjustments=1),
    }
    return {**zero, "sampled": bench.words.deferred("off", noise=["measured", 0])}, active


WAYS: dict[str, Way] = {
    "sampler": lambda b: (b.deferrals("sampler", {**ZERO, **WHOLE}), b.deferrals("sampler", ACTIVE)),
    "guider": lambda b: (b.deferrals("guider", ZERO), b.deferrals("guider", OPPOSITE)),
    "patch": lambda b: (b.deferrals("patch", ZERO), b.deferrals("patch", OPPOSITE)),
    "AMG": _amg,
    "optimizer": _optimizer,
}


def value(output: list[Any]) -> Tensor:
    found = output[0]["samples"] if isinstance(output[0], dict) else output[0].noise
    assert torch.isfinite(found).all(), "NaN or infinite"
    return found


def apart(found: Tensor, expected: Tensor) -> float:
    """How far the samples are from what they should be, as a share of their length; the furthest of them."""
    away = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return float(away.max())


def prepared(bench: Bench, graph: Prompt) -> Bench:
    """The bench, with what the host itself makes of it. Where it cannot sample two images at once, it has one."""
    patched = bench.run((0, 1), **graph)["p"][0]  # once, as in a session: what it remembers, it keeps
    bench = replace(bench, given={**bench.given, "p": patched})
    plain, vanilla = ({"k": bench.words.ksampler(model=model)} for model in (["m", 0], ["p", 0]))
    alone = [value(bench.run([i], **vanilla)["k"]) for i in (0, 1)]
    try:
        together = value(bench.run((0, 1), **vanilla)["k"])
    except NodeError:
        bench, together = replace(bench, rows=(0,)), alone[0]
    many = len(bench.rows) > 1
    curve = bench.run(bench.rows, k=bench.words.deferred(memorized_threshold=0.0))["k"][1]
    return replace(
        bench,
        threshold=float(curve.pull[:, 0].mean()) if many else 0.0,
        vanilla=together,
        idle=torch.equal(value(bench.run(bench.rows, **plain)["k"]), together),
        each_alone=many and apart(together, torch.cat(alone)) < AS_ALONE,
    )


def outcome(bench: Bench, way: str) -> str:
    """Empty where it runs; else the sentence that refuses, or KSampler's own error under guidance.

    Raises AssertionError, or NodeError of something else.
    """
    zero, active = WAYS[way](bench)
    # Not the samples themselves, where the gradient of a similarity is rounding.
    noise = torch.randn(bench.vanilla.shape, generator=torch.manual_seed(5))
    works = {"works": {"samples": bench.vanilla + bench.vanilla.std() * noise}}
    try:
        out = bench.run(bench.rows, works, **{**zero, **active})
        parts = [bench.run([i], works, **active) for i in bench.rows] if bench.each_alone else []
    except NodeError as error:
        if error.kind.endswith("GuardError"):
            return error.message
        try:
            bench.run(bench.rows, k=bench.words.ksampler(cfg=5.0))
        except NodeError as vanilla:
            if vanilla.message == error.message:
                return f"as KSampler: {error.message}"
        raise
    for n in [n for n in zero if not n.startswith(PART)]:
        expected = bench.vanilla if isinstance(out[n][0], dict) else value(out["measured"])
        assert torch.equal(value(out[n]), expected), f"{way}, {n}: not what KSampler makes under the same patch"
    for n in [n for n in active if not n.startswith(PART)]:
        found = value(out[n])
        if parts and n != "batch-wise":
            alone = torch.cat([value(part[n]) for part in parts])
            assert apart(found, alone) < AS_ALONE, (
                f"{way}, {n}: a batch is not what its samples are alone by {apart(found, alone):.1e}"
            )
    return ""
