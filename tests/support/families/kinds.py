"""What a family is: how its tiny model is made, and what it is asked with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from support.executor import Host
from support.families.weights import prompt

BATCH = 2


@dataclass(frozen=True)
class Precision:
    """Data types of the weights and of the computation, None: what the host chooses for the weights' type here."""

    name: str
    weights: torch.dtype
    compute: torch.dtype | None = None
    prepare: Callable[[ModelPatcher], ModelPatcher] | None = None  # a state of the loaded model


PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", torch.float32, torch.float32),
        Precision("fp16", torch.float16, torch.float16),
        Precision("bf16", torch.bfloat16, torch.bfloat16),
        Precision("fp8", torch.float8_e4m3fn),
    )
}


@dataclass(frozen=True)
class Family:
    """One row of the matrix. `make(host, precision)` gives a fresh MODEL, loaded or built under inference mode."""

    name: str
    origin: str  # how it came into the host
    make: Callable[[Host, Precision], ModelPatcher]
    latent: tuple[int, ...] = (4, 4, 6)
    tokens: int = 8
    width: int = 768
    pooled: int = 0
    cfg: float = 5.0
    patch: dict[str, Any] | None = None  # a node of the host that is put on the model
    more: dict[str, Any] = field(default_factory=dict)  # goes with every prompt

    def prompt(self, seed: int) -> list:
        return prompt(self.tokens, self.width, seed, self.pooled, **self.more)

    def given(self, model: ModelPatcher) -> dict[str, Any]:
        """What the cells' prompts link to."""
        return {
            "m": model,
            "mem": self.prompt(1),
            "null": self.prompt(2),
            "latent": {"samples": torch.zeros(BATCH, *self.latent)},
            "clip": Reader(self),
        }


@dataclass(frozen=True)
class Reader:
    """A CLIP for deduplication: every text is one of the family's random prompts."""

    family: Family

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list:
        return self.family.prompt(100 + len(tokens))
