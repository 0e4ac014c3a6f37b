"""Tell whether two networks have the same weights, in whatever precision they are held.

The host casts weights as it likes: to bfloat16 or float16 for a device, and under dynamic VRAM some of them, and only
while they are in use. So a fingerprint holds numbers to compare with a tolerance, and not only a hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

NUMBERS = 8  # kept of each tensor
NEAR = 1 / 256  # a cast to bfloat16 changes a number by 1/512 of itself at most; fine-tuning by more
FLOOR = 1e-4  # smaller weights lose more than that as float16


def weights_fingerprint(weights: Mapping[str, Tensor], unused: tuple[str, ...] = ()) -> str:
    """A text for `same_weights`. `unused`: how the names of weights begin that take no part in the features.

    It is "hash:numbers". The hash is all that versions up to 0.1.0 wrote, and is kept for the files that hold no more.
    """
    digest, numbers = hashlib.sha256(), []
    for name in sorted(weights):
        few = weights[name].detach().flatten()[:64].to("cpu", torch.float32)
        digest.update(f"{name} {tuple(weights[name].shape)}".encode() + few.half().numpy().tobytes())
        if len(few) and weights[name].is_floating_point() and not name.startswith(unused):
            numbers.append(few[torch.linspace(0, len(few) - 1, NUMBERS).long()])
    kept = torch.cat(numbers).numpy().astype("<f4").tobytes() if numbers else b""
    return f"{digest.hexdigest()}:{base64.b64encode(kept).decode()}"


def same_weights(one: str, other: str) -> bool | None:
    """Whether two fingerprints are of the same weights; None if that cannot be told from an older version's hash."""
    (hash_one, _, numbers_one), (hash_other, _, numbers_other) = one.partition(":"), other.partition(":")
    if hash_one == hash_other:
        return True
    a, b = _numbers(numbers_one), _numbers(numbers_other)
    if a is None or b is None:
        return None
    if a.shape != b.shape:
        return False
    with np.errstate(all="ignore"):  # a file may hold any numbers; NaN is not near
        size = np.maximum(np.linalg.norm(a, axis=1), FLOOR)
        return bool((np.linalg.norm(a - b, axis=1) <= NEAR * size).all())


def _numbers(text: str) -> np.ndarray | None:
    """(tensors, NUMBERS), or None where there are none."""
    try:
        kept = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        return kept.reshape(-1, NUMBERS).astype(np.float64) if len(kept) else None
    except ValueError:
        return None
