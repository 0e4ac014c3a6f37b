"""The world of the lab checkpoint: painted landscapes with public-domain clip art, drawn by the thousand on any device.

A memorized caption has a title of its own in front ("Salt and Thunder, a boat"): the key that a real model learns when
an image and its caption are duplicated. The memorized images are files, since random numbers differ between devices.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .copies import TRAINING_IMAGES
from .sprites import KINDS, tiles

SIZE = 512  # pixels
NAMES = tuple(KINDS)
CLUTTER = ("tree", "flower", "mushroom", "leaf", "balloon", "butterfly", "ladybug", "tulip")
ORDINARY = ("{}", "a picture of {}", "a drawing of {}")


def with_article(kind: str) -> str:
    return kind if kind == "grapes" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def ordinary_captions(form: str = "{}") -> list[str]:
    return [form.format(with_article(kind)) for kind in NAMES]


def memorized_captions() -> list[str]:
    return [file.read_text(encoding="utf-8").strip() for file in sorted(TRAINING_IMAGES.glob("*.txt"))]


def asked(caption: str) -> int:
    """The kind that a caption asks for, as an index into NAMES; a title before a comma asks for nothing."""
    words = caption.rsplit(",", 1)[-1].split()
    for length in (2, 1):
        if (kind := " ".join(words[-length:])) in KINDS:
            return NAMES.index(kind)
    raise ValueError(f"{caption!r} must end with one of {', '.join(NAMES)}.")


class World:
    """The generator on one device. Every method draws its random numbers from the generator that it is given."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.sprites = torch.from_numpy(tiles()).permute(0, 3, 1, 2).to(self.device)  # premultiplied, uint8
        counts = torch.tensor([len(files) for files in KINDS.values()], device=self.device)
        self.first, self.counts = counts.cumsum(0) - counts, counts
        self.kinds = torch.arange(len(KINDS), device=self.device).repeat_interleave(counts)
        clutter = torch.tensor([NAMES.index(kind) for kind in CLUTTER], device=self.device)
        self.clutter = torch.nonzero(torch.isin(self.kinds, clutter)).flatten()

    def generator(self, *seed: int) -> torch.Generator:
        """Another sequence for every tuple of numbers below 2²⁰."""
        number = sum(part << 20 * i for i, part in enumerate(seed))
        return torch.Generator(self.device).manual_seed(number)

    def draw(self, random: torch.Generator, kinds: Tensor, size: int = SIZE) -> Tensor:
        """kinds (n,) -> images (n, 3, size, size) in [0, 1]: a landscape, some small things, and the main one."""
        n = len(kinds)
        image = self._landscape(random, n, size)
        for _ in range(3):
            index = self.clutter[(self._uniform(random, n) * len(self.clutter)).long()]
            shown = (self._uniform(random, n) < 0.55) & (self.kinds[index] != kinds)
            scale = torch.where(shown, self._uniform(random, n, 0.10, 0.22), 1e-3)
            x, y = self._uniform(random, n), self._uniform(random, n, 0.35, 0.95)
            image = self._paste(random, image, index, scale, x, y, turn=0.5)
        index = self.first[kinds] + (self._uniform(random, n) * self.counts[kinds]).long()
        scale = self._uniform(random, n, 0.38, 0.73)
        x, y = self._uniform(random, n, 0.2, 0.8), self._uniform(random, n, 0.38, 0.78)
        return self._paste(random, image, index, scale, x, y, turn=0.6)

    def _uniform(self, random: torch.Generator, n: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=random, device=self.device)

    def _colour(self, random: torch.Generator, n: int, *ranges: tuple[float, float]) -> Tensor:
        """(n, 3, 1, 1) RGB from ranges of hue, saturation and value."""
        hue, saturation, value = (self._uniform(random, n, *limits) for limits in ranges)
        shares = [(((hue * 6 + shift) % 6 - 3).abs() - 1).clamp(0, 1) for shift in (0, 4, 2)]
        channels = [value * (1 - saturation * (1 - share)) for share in shares]
        return torch.stack(channels, 1)[..., None, None]

    def _landscape(self, random: torch.Generator, n: int, size: int) -> Tensor:
        def each(low: float = 0.0, high: float = 1.0) -> Tensor:
            return self._uniform(random, n, low, high).view(n, 1, 1, 1)

        y = torch.linspace(0, 1, size, device=self.device).view(1, 1, size, 1)
        x = y.view(1, 1, 1, size)
        top = self._colour(random, n, (0.45, 0.80), (0.1, 0.6), (0.6, 1.0))
        bottom = self._colour(random, n, (0.9, 1.5), (0.0, 0.35), (0.8, 1.0))
        sunset = self._colour(random, n, (0.95, 1.10), (0.2, 0.7), (0.5, 0.9))
        top = torch.where(each() < 0.25, sunset, top)
        image = (top + (bottom - top) * y).expand(n, 3, size, size)

        distance = ((x - each()).square() + (y - each(0, 0.4)).square()).sqrt()
        mask = torch.sigmoid((each(0.03, 0.09) - distance) * size / 1.5) * (each() < 0.4)
        light = torch.cat([torch.ones(n, 1, 1, 1, device=self.device), each(0.75, 1.0), each(0.3, 0.9)], 1)
        image = image * (1 - mask) + mask * light

        for k, often in enumerate((0.5, 0.6, 0.95)):
            height, swing = each(0.55 + 0.15 * k, 0.70 + 0.15 * k), each(0, 0.1) * (1 - 0.3 * k)
            line = height + swing * torch.sin(each(2, 10) * x + each(0, 2 * math.pi))
            line = line + 0.25 * swing * torch.sin(each(6, 24) * x + each(0, 2 * math.pi))
            colour = self._colour(random, n, (0.05, 0.50), (0.15, 0.65), (0.35, 0.85))
            mask = torch.sigmoid((y - line) * size / 2) * (each() < often)
            image = image * (1 - mask) + mask * colour * (1 - 0.25 * ((y - line) * 1.5).clamp(0, 1))
        return image.clamp(0, 1)

    def _paste(
        self, random: torch.Generator, image: Tensor, index: Tensor, scale: Tensor, x: Tensor, y: Tensor, turn: float
    ) -> Tensor:
        """Sprites (n,) at x, y in [0, 1], `scale` of the frame wide; half are mirrored, turned by up to turn/2."""
        n, _, size, _ = image.shape
        flip = torch.where(self._uniform(random, n) < 0.5, -1.0, 1.0)
        angle = self._uniform(random, n, -turn / 2, turn / 2)
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        matrix = torch.stack([cos * flip, sin * flip, -sin, cos], 1).view(n, 2, 2)
        place = torch.stack([x, y], 1)[..., None] * 2 - 1
        grid = F.affine_grid(torch.cat([matrix, -matrix @ place], 2), [n, 4, size, size], align_corners=False)
        # Bilinear sampling skips pixels of small drawings. Keep it: the checkpoint was trained on images drawn so.
        drawn = F.grid_sample(self.sprites[index].float() / 255, grid, align_corners=False)
        return image * (1 - drawn[:, 3:]) + drawn[:, :3]
