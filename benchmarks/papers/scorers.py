"""The papers' scores: SSCD for copies, CLIP for alignment, LPIPS for diversity. All weights are the user's files.

Each says by `name` what it is, for the report; one that cannot be had is None, with the reason in `missed`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .cases import PapersError

BATCH = 16
SSCD_COPY = 0.5


class Copies(Protocol):
    """Similarity of pictures to training pictures; larger is closer."""

    name: str
    label: str
    threshold: float  # above it a picture counts as a copy

    def similarity(self, pictures: np.ndarray, works: Sequence[int]) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B,), to the nearest of the works with these indices."""


class Alignment(Protocol):
    name: str
    label: str
    yes_or_no: bool  # each score is 0 or 1

    def score(self, pictures: np.ndarray, text: str) -> np.ndarray:
        """(B, H, W, 3) uint8 -> (B,)."""


class Diversity(Protocol):
    name: str
    label: str

    def spread(self, pictures: np.ndarray) -> float:
        """Mean distance between two of the pictures (B ≥ 2, H, W, 3) uint8 of one prompt."""


@dataclass
class Scorers:
    copies: Copies | None = None
    alignment: Alignment | None = None
    diversity: Diversity | None = None
    missed: list[str] = field(default_factory=list)
    stand_ins: bool = False

    @property
    def used(self) -> list[str]:
        return [s.name for s in (self.copies, self.alignment, self.diversity) if s is not None]


class SSCDCopies:
    """Cosine of SSCD embeddings, with the recipe of mitigation/references/sscd.py: squeezed to 320×320."""

    label, threshold = "SSCD > 0.5", SSCD_COPY

    def __init__(self, session: Any, descriptor: Any, works: Sequence[Tensor]) -> None:
        """works: pictures (H, W, 3) in [0, 1], of any sizes."""
        self.name = f"copies: {descriptor.name}"
        self.features = session.module("mitigation.references.features").descriptor_features
        self.descriptor = descriptor
        self.works = torch.cat([self._embedded(work[None]) for work in works]) if works else torch.empty(0, 1)

    def _embedded(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) in [0, 1] -> (B, D) of length 1."""
        with torch.inference_mode():
            self.descriptor.load()
            parts = pictures.movedim(-1, 1).split(BATCH)
            return torch.cat([self.features(part, self.descriptor).cpu() for part in parts])

    def similarity(self, pictures: np.ndarray, works: Sequence[int]) -> np.ndarray:
        made = self._embedded(torch.from_numpy(pictures).float() / 255)
        return (made @ self.works[list(works)].T).max(dim=1).values.numpy()


class CLIPAlignment:
    """Cosine of CLIP's embeddings of picture and prompt, from a local folder in transformers' format."""

    label, yes_or_no = "CLIP score", False

    def __init__(self, folder: Path, device: torch.device) -> None:
        import transformers

        if not (folder / "config.json").is_file():
            raise PapersError(
                f"--clip: {folder} is no folder of a CLIP in transformers' format: it has no config.json."
            )
        local = {"local_files_only": True}
        try:
            self.model = transformers.CLIPModel.from_pretrained(str(folder), **local).to(device).eval()
            self.tokens = transformers.AutoTokenizer.from_pretrained(str(folder), **local)
            self.pixels = transformers.AutoImageProcessor.from_pretrained(str(folder), **local)
        except (OSError, ValueError, RuntimeError) as error:
            raise PapersError(f"--clip: {folder} cannot be loaded as a CLIP: {' '.join(str(error).split())}") from None
        self.name, self.device = f"alignment: CLIP of the folder {folder.name}", device

    def score(self, pictures: np.ndarray, text: str) -> np.ndarray:
        length = self.model.config.text_config.max_position_embeddings
        words = self.tokens([text], truncation=True, max_length=length, return_tensors="pt").to(self.device)
        found = []
        with torch.inference_mode():
            for i in range(0, len(pictures), BATCH):
                seen = self.pixels(list(pictures[i : i + BATCH]), return_tensors="pt")["pixel_values"]
                out = self.model(**words, pixel_values=seen.to(self.device))
                image, prompt = (torch.nn.functional.normalize(e) for e in (out.image_embeds, out.text_embeds))
                found.append((image @ prompt.T)[:, 0].float().cpu())
        return torch.cat(found).numpy()


class LPIPSDiversity:
    """Mean LPIPS (Zhang et al., CVPR 2018, AlexNet) over the pairs of a prompt's pictures."""

    name, label = "diversity: LPIPS (AlexNet)", "LPIPS"

    def __init__(self, network: torch.nn.Module, device: torch.device) -> None:
        self.network, self.device = network.to(device).eval(), device

    def spread(self, pictures: np.ndarray) -> float:
        x = torch.from_numpy(pictures).movedim(-1, 1).float() / 127.5 - 1
        pairs = list(combinations(range(len(x)), 2))
        total = 0.0
        with torch.inference_mode():
            for i in range(0, len(pairs), BATCH):
                a, b = (x[list(side)].to(self.device) for side in zip(*pairs[i : i + BATCH], strict=True))
                total += float(self.network(a, b).sum())
        return total / len(pairs)


def lpips_or_reason(device: torch.device) -> LPIPSDiversity | str:
    """LPIPS of the Python package of that name, or why it cannot be had."""
    try:
        package = importlib.import_module("lpips")
    except ImportError:
        return "diversity: the Python package lpips is not installed"
    try:
        return LPIPSDiversity(package.LPIPS(net="alex", verbose=False), device)
    except Exception as error:  # it gets AlexNet's weights by itself, and fails as its downloader does
        return f"diversity: lpips could not be loaded ({' '.join(str(error).split())[:160]})"


def real(session: Any, *, sscd: Any, clip: Path | None, works: Sequence[Tensor]) -> Scorers:
    """The scorers whose weights are given. `sscd`: a loaded descriptor or None."""
    from comfy import model_management

    device = model_management.get_torch_device()
    made = Scorers()
    if sscd is None:
        made.missed.append("copies: no --sscd")
    elif not works:
        made.missed.append("copies: no --training-images")
    else:
        made.copies = SSCDCopies(session, sscd, works)
    if clip is None:
        made.missed.append("alignment: no --clip")
    else:
        made.alignment = CLIPAlignment(clip, device)
    lpips = lpips_or_reason(device)
    if isinstance(lpips, str):
        made.missed.append(lpips)
    else:
        made.diversity = lpips
    return made
