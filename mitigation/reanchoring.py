"""Re-anchored guidance: towards a rewording of the prompt, and away from the prompt itself where it pulls. [PRSS]

Chen et al., *Enhancing Privacy-Utility Trade-offs to Mitigate Memorization in Diffusion Models*, CVPR 2025,
arXiv 2504.18032.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .batch import broadcast, replace_samples


def reanchored_scale(m: Tensor, cfg: float, quiet: float, memorized: float) -> Tensor:
    """s = min(w, w (m − k)/(b − k)) with k = (w a − b)/(w − 1): 1 at m = a (`quiet`), w at m = b (`memorized`).

    m (B,) is the rewording's own magnitude ‖ε(e*) − ε_u‖ in the units of a and b, w is `cfg` > 1. The paper has a = 3
    and b = 5 for SD 1.4. Below a the paper guides with the rewording as with any prompt, which is s = 1.
    """
    k = (cfg * quiet - memorized) / (cfg - 1)
    return (cfg * (m - k) / (memorized - k)).clamp(1.0, cfg)


def reanchored(original: Tensor, reworded: Tensor, null: Tensor, scale: Tensor, cfg: float) -> Tensor:
    """The conditional prediction c with null + w (c − null) = e + s (e* − e) + (w − s)(e* − null), w = `cfg`.

    e, e* and null (B, ...) are the predictions under the prompt, its rewording and no prompt; they may be denoised
    ones, because the sum is linear. The host guides with c, so other patches see one prompt. s = 1 gives e* itself.
    """
    s = broadcast(scale, original)
    guided = original + s * (reworded - original) + (cfg - s) * (reworded - null)
    return replace_samples(scale > 1, null + (guided - null) / cfg, reworded)


def acts_on(pull: Tensor, memorized: float) -> Tensor:
    """Which samples are re-anchored, (B,) bool: those whose prompt pulls at the first step. Unknown (NaN): none."""
    return torch.nan_to_num(pull, nan=-1.0) >= memorized
