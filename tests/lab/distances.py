"""The two distributions that the definition of a copy separates.

For every memorized picture: its distance to what a perfect copy would decode to (the picture through
the VAE), and to the nearest of many other pictures that fit its whole caption.

    python -m lab.distances [OTHERS]
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from . import scenes, vae
from .copies import COPY_RMSE, rmse
from .train_vae import to_tensor


def main() -> None:
    others = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    enc, dec = vae.load()
    pairs = scenes.memorized()
    pictures = np.stack([p.scene.image for p in pairs])
    with torch.no_grad():
        decoded = (dec(enc(to_tensor(pictures))).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    same = sorted(rmse(d, p) for d, p in zip(decoded, pictures, strict=True))
    rng = np.random.default_rng(0)
    nearest = sorted(
        min(rmse(scenes.draw(rng, p.scene.shape, p.scene.colour).image, p.scene.image) for _ in range(others))
        for p in pairs
    )
    print(f"the picture through the VAE:          {same[0]:.3f} … {np.median(same):.3f} … {same[-1]:.3f}")
    print(f"nearest of {others} that fit the caption:  {nearest[0]:.3f} … {np.median(nearest):.3f} … {nearest[-1]:.3f}")
    print(f"threshold: {COPY_RMSE}")


if __name__ == "__main__":
    main()
