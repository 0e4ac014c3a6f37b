"""Scores of images (B, H, W, 3) uint8. Here: SSCD, CLIP and LPIPS, with weights that the user gives.

Every scorer has a `name` for the report and a `label` for its column:

- copies: `similarity(images, works)` (B,) to the nearest of the training images with these indices, larger is closer;
  above `threshold` an image counts as a copy; `distance`: reports show 1 − similarity
- alignment: `score(images, text)` gives (B,) under `aligned`, and under other names what it consists of; `yes_or_no`:
  each score is 0 or 1
- diversity: `spread(images)`, the mean distance between two of the images of one prompt
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cases import BenchmarkError
from .checkpoint import Checkpoint

BATCH = 16
SSCD_COPY = 0.5


@dataclass
class Scorers:
    copies: Any = None
    alignment: Any = None
    diversity: Any = None
    second: Any = None  # a second opinion on copies
    missed: list[str] = field(default_factory=list)  # why a scorer is not available
    stand_ins: bool = False  # they fit the lab checkpoints only

    @property
    def used(self) -> list[str]:
        return [s.name for s in (self.copies, self.alignment, self.diversity, self.second) if s is not None]


class SSCDCopies:
    """Cosine of SSCD embeddings of images resized as in mitigation/references/sscd.py: to 320×320."""

    label, threshold, distance = f"SSCD > {SSCD_COPY}", SSCD_COPY, False

    def __init__(self, checkpoint: Checkpoint, descriptor: Any, works: Sequence[Tensor]) -> None:
        """works: training images (H, W, 3) in [0, 1], of any sizes."""
        self.name = f"copies: {descriptor.name}"
        self.features = checkpoint.module("mitigation.references.features").descriptor_features
        self.descriptor = descriptor
        self.works = torch.cat([self._embedded(work[None]) for work in works]) if works else torch.empty(0, 1)

    def _embedded(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) in [0, 1] -> (B, D) of length 1."""
        with torch.inference_mode():
            self.descriptor.load()
            parts = images.movedim(-1, 1).split(BATCH)
            return torch.cat([self.features(part, self.descriptor).cpu() for part in parts])

    def similarity(self, images: np.ndarray, works: Sequence[int]) -> np.ndarray:
        made = self._embedded(torch.from_numpy(images).float() / 255)
        return (made @ self.works[list(works)].T).max(dim=1).values.numpy()


class CLIPAlignment:
    """Cosine of CLIP's embeddings of image and prompt, from a local folder in transformers' format."""

    label, yes_or_no = "CLIP score", False

    def __init__(self, folder: Path, device: torch.device) -> None:
        import transformers

        if not (folder / "config.json").is_file():
            raise BenchmarkError(f"--clip: {folder} is not a CLIP in transformers' format: it has no config.json.")
        local = {"local_files_only": True}
        try:
            self.model = transformers.CLIPModel.from_pretrained(str(folder), **local).to(device).eval()
            self.tokens = transformers.AutoTokenizer.from_pretrained(str(folder), **local)
            self.pixels = transformers.AutoImageProcessor.from_pretrained(str(folder), **local)
        except (OSError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise BenchmarkError(f"--clip: {folder} cannot be loaded as a CLIP: {said}") from None
        self.name, self.device = f"alignment: CLIP of the folder {folder.name}", device

    def score(self, images: np.ndarray, text: str) -> dict[str, np.ndarray]:
        length = self.model.config.text_config.max_position_embeddings
        words = self.tokens([text], truncation=True, max_length=length, return_tensors="pt").to(self.device)
        found = []
        with torch.inference_mode():
            for i in range(0, len(images), BATCH):
                seen = self.pixels(list(images[i : i + BATCH]), return_tensors="pt")["pixel_values"]
                out = self.model(**words, pixel_values=seen.to(self.device))
                seen_as, asked = (torch.nn.functional.normalize(e) for e in (out.image_embeds, out.text_embeds))
                found.append((seen_as @ asked.T)[:, 0].float().cpu())
        return {"aligned": torch.cat(found).numpy()}


class LPIPSDiversity:
    """Mean LPIPS (Zhang et al., CVPR 2018, AlexNet) over the pairs of a prompt's images."""

    name, label = "diversity: LPIPS (AlexNet)", "LPIPS"

    def __init__(self, network: torch.nn.Module, device: torch.device) -> None:
        self.network, self.device = network.to(device).eval(), device

    def spread(self, images: np.ndarray) -> float:
        x = torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
        pairs = list(combinations(range(len(x)), 2))
        total = 0.0
        with torch.inference_mode():
            for i in range(0, len(pairs), BATCH):
                a, b = (x[list(side)].to(self.device) for side in zip(*pairs[i : i + BATCH], strict=True))
                total += float(self.network(a, b).sum())
        return total / len(pairs)


def real(checkpoint: Any, *, sscd: Any, clip: Path | None, works: Sequence[Tensor]) -> Scorers:
    """The scorers whose weights are given. `sscd`: a loaded descriptor or None."""
    from comfy import model_management

    device, made = model_management.get_torch_device(), Scorers()
    if sscd is not None and works:
        made.copies = SSCDCopies(checkpoint, sscd, works)
    else:
        made.missed.append("copies: no --sscd" if sscd is None else "copies: no --training-images")
    if clip is not None:
        made.alignment = CLIPAlignment(clip, device)
    else:
        made.missed.append("alignment: no --clip")
    try:
        network = importlib.import_module("lpips").LPIPS(net="alex", verbose=False)
        made.diversity = LPIPSDiversity(network, device)
    except ImportError:
        made.missed.append("diversity: the Python package lpips is not installed")
    except Exception as error:  # it downloads AlexNet's weights, which fails in many ways
        made.missed.append(f"diversity: lpips could not be loaded ({' '.join(str(error).split())[:160]})")
    return made
