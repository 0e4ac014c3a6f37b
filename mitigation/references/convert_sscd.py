"""Convert SSCD's official TorchScript archive to safetensors, which holds numbers and no code.

Run it in the folder of this pack with ComfyUI's Python:

    python -m mitigation.references.convert_sscd sscd_disc_mixup.torchscript.pt sscd_disc_mixup.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from .sscd import sscd_from, torchvision_names

SOURCE = "https://github.com/facebookresearch/sscd-copy-detection"


def convert(archive: Path, target: Path) -> int:
    """Write the weights of `archive` and return how many. Raises ValueError or RuntimeError if it is not SSCD."""
    with torch.inference_mode(False):
        weights = torchvision_names(torch.jit.load(str(archive), map_location="cpu").state_dict())
        sscd_from(weights)  # raises ValueError for another network
        plain = {name: weight.detach().float().contiguous().clone() for name, weight in weights.items()}
    save_file(plain, str(target), metadata={"format": "pt", "source": f"{SOURCE}, {archive.name}"})
    return len(plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("target", type=Path)
    asked = parser.parse_args()
    try:
        count = convert(asked.archive, asked.target)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{asked.archive} cannot be converted: {error}")
    sys.stdout.write(f"{asked.target}: {count} weights. Move it to ComfyUI's models/copy_detection.\n")


if __name__ == "__main__":
    main()
