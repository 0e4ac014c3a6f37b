"""What the threshold of copies.py separates: memorized images through the VAE, and other scenes of the same kind.

.host/python -m lab.threshold
"""

import numpy as np
import torch

from .copies import SIDE, distances, training_pairs
from .networks import load_vae
from .scenes import World, asked


@torch.no_grad()
def main(others: int = 100) -> None:
    vae, world, near, far = load_vae(), World(), [], []
    for i, (caption, image) in enumerate(training_pairs()):
        own = torch.from_numpy(image[None].copy()).movedim(-1, 1).float() / 255
        near.append(distances(vae.taesd_decoder(vae.taesd_encoder(own)).clamp(0, 1), own).item())
        kinds = torch.full((others,), asked(caption))
        far.append(distances(world.draw(world.generator(9, i), kinds, 2 * SIDE), own).min().item())
        print(f"{caption:40s} itself: {near[-1]:.4f}, nearest of {others} others: {far[-1]:.4f}", flush=True)
    for name, found in (("itself through the VAE", near), ("the nearest other scene of its kind", far)):
        print(f"{name}: smallest {min(found):.4f}, median {np.median(found):.4f}, largest {max(found):.4f}")


if __name__ == "__main__":
    main()
