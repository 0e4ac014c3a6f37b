"""Random weights at a scale that keeps signals alive through any of the host's networks."""

from collections.abc import Iterable

import torch
from torch import Tensor

SCALE = 0.7  # of N(0, 1/fan-in)
SMALL = ("modulation", "adaLN", "emb_pos", "pos_embed")  # tables that are added to what is of size 1


def fill(named: Iterable[tuple[str, Tensor]], seed: int) -> None:
    """Draw every parameter in place: norms at 1, biases small, matrices and kernels by their fan-in.

    No layer is left at zero as training would begin it: the output must depend on the prompt.
    """
    draw = torch.Generator().manual_seed(seed)
    for name, weight in named:
        if not weight.is_floating_point():
            continue
        if name.endswith("scale") or ("norm" in name and name.endswith("weight") and weight.ndim < 2):
            weight.fill_(1.0)
        elif weight.ndim < 2 or (any(part in name for part in SMALL) and not name.endswith(".weight")):
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draw))
        else:
            fan = weight.shape[1:].numel()
            weight.copy_(SCALE * fan**-0.5 * torch.randn(weight.shape, generator=draw))


def prompt(tokens: int, width: int, seed: int, pooled: int = 0, **more: object) -> list:
    """CONDITIONING of one random text."""
    draw = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        held = {"pooled_output": torch.randn(1, pooled, generator=draw)} if pooled else {}
        return [[torch.randn(1, tokens, width, generator=draw), {**held, **more}]]
