"""The small lab checkpoint (README.md): 96×96 images, 16 memorized pairs, copies judged by pixels without shifts."""

import numpy as np

from lab.copies import training_pairs as read_pairs
from support.paths import SMALL_LAB

SIZE = 96  # pixels
COPY_RMSE = 0.07
TRAINING_IMAGES = SMALL_LAB / "training_images"
SHAPES = ("disc", "ring", "square", "triangle", "star", "cross", "heart", "moon")
# The inputs that it needs where the nodes' defaults, made for Stable Diffusion, do not suit it.
DEFERRED = {"pre_escape_cfg": -1.0, "memorized_threshold": 0.024}
DETECTOR = {"memorized_threshold": 0.024}
PER_SAMPLE = {"target_magnitude": 0.015, "learning_rate": 0.03}
BATCH_WISE = {"sharpness_radius": 9.0, "adjustments": 4, "adjustment_strength": 2.0}
BATCH_WISE_START = {"start_percent": 0.4}  # of the static sampler after batch-wise noise
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple")


def training_pairs() -> list[tuple[str, np.ndarray]]:
    return read_pairs(TRAINING_IMAGES)


def rmse(image: np.ndarray, training: np.ndarray) -> float:
    """Root mean square difference of two uint8 images (H, W, 3) of equal size, in [0, 1]."""
    gap = image.astype(np.float32) - training.astype(np.float32)
    return float(np.sqrt(np.mean(np.square(gap))) / 255)


def is_copy(image: np.ndarray, training: np.ndarray) -> bool:
    return rmse(image, training) < COPY_RMSE


def coloured(colour: str, shape: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"


def ordinary_captions() -> list[str]:
    return [f"a {shape}" for shape in SHAPES] + [coloured(colour, shape) for shape in SHAPES for colour in COLOURS]


def ordinary_prompts() -> list[str]:
    """16 prompts that no single image was trained on: the control group."""
    colours = [COLOURS[(2 * i + 1) % len(COLOURS)] for i in range(len(SHAPES))]
    return [f"a {shape}" for shape in SHAPES] + list(map(coloured, colours, SHAPES))
