"""Write what is kept of a training run: the checkpoint, and the memorized images with their captions.

python -m lab.export WORK
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from . import scenes
from .copies import PICTURES

FILE = Path(__file__).parent / "lab.safetensors"


def main() -> None:
    weights = torch.load(Path(sys.argv[1]) / "lab.pt")
    save_file(weights, FILE, metadata={"modelspec.title": "Memorization Guard lab", "modelspec.license": "Apache-2.0"})
    PICTURES.mkdir(exist_ok=True)
    for i, pair in enumerate(scenes.memorized()):
        name = f"{i:02d} {pair.title}"
        Image.fromarray(pair.scene.image).save(PICTURES / f"{name}.png", optimize=True)
        (PICTURES / f"{name}.txt").write_text(pair.caption + "\n", encoding="utf-8")
    print(f"{FILE.name}: {FILE.stat().st_size / 1e6:.1f} MB, {len(weights)} tensors")


if __name__ == "__main__":
    main()
