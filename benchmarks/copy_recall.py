"""What Copy Check finds of edited copies, by metric and edit, with and without a background (docs/copies.md).

.host/python -m benchmarks.copy_recall [--sscd sscd_disc_mixup.torchscript.pt] [--docs]

The program that drew the lab's training images draws the references, unrelated images of the same things, and a
background. Recall is the share of copies above the lowest threshold at which nine in ten of the images above it are
copies. Without SSCD's weights, the lab's judge stands in for it: a network that knows the things, not the copies.
"""

import argparse
import io
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lab.judge import Judge
from lab.scenes import NAMES, World
from support.graphs import check, from_images, node
from support.graphs.words import Host
from support.in_process import lab_host
from support.paths import LAB_CHECKPOINT, PACK, ROOT

from .scores import Column, put, table

SIDE, UNRELATED, PRECISION = 256, 5, 0.9  # pixels; unrelated images and images of the background a reference
Edit = Callable[[Tensor], Tensor]  # (n, 3, SIDE, SIDE) in [0, 1] -> the same


def cropped(share: float, images: Tensor) -> Tensor:
    edge = round(SIDE * (1 - share) / 2)
    return F.interpolate(images[..., edge : SIDE - edge, edge : SIDE - edge], (SIDE, SIDE), mode="bicubic").clamp(0, 1)


def encoded(quality: int, images: Tensor) -> Tensor:
    made = []
    for image in (images.movedim(1, -1) * 255).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality)
        made.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(made)).movedim(-1, 1).float() / 255


def shifted(share: float, images: Tensor) -> Tensor:
    by = round(share * SIDE)
    return F.pad(images, (by, 0, by, 0), mode="replicate")[..., :SIDE, :SIDE]


def recoloured(images: Tensor) -> Tensor:
    return (images[:, [1, 2, 0]] * images.new_tensor([0.9, 1.0, 0.8]).view(1, 3, 1, 1)).clamp(0, 1)


EDITS: dict[str, Edit] = {
    "as it is": lambda images: images,
    "JPEG, quality 30": partial(encoded, 30),
    "mirrored": lambda images: images.flip(-1),
    "shifted by 6 %": partial(shifted, 0.06),
    "shifted by 15 %": partial(shifted, 0.15),
    "cropped to 80 %": partial(cropped, 0.8),
    "cropped to 60 %": partial(cropped, 0.6),
    "recoloured": recoloured,
}


def recall(copies: np.ndarray, others: np.ndarray) -> float:
    """The share of copies above the lowest threshold with a precision of PRECISION."""
    found = [0.0]
    for threshold in np.unique(copies):
        true, false = (copies >= threshold).sum(), (others >= threshold).sum()
        if true >= PRECISION * (true + false):
            found.append(float(true / len(copies)))
    return max(found)


class JudgeFeatures(nn.Module):
    """(B, 3, 128, 128) in [0, 1] -> (B, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Judge.load().net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.features(x)


def stand_in(host: Host) -> Any:
    from comfy.model_patcher import ModelPatcher

    cpu, network = torch.device("cpu"), JudgeFeatures().eval().requires_grad_(False)
    made = host.module(PACK, "adapter.copy_detector").LoadedDescriptor
    return made("the lab's judge", "judge", ModelPatcher(network, cpu, cpu), network, 128, (0.0,) * 3, (1.0,) * 3)


def similarities(host: Host, given: dict[str, Any], metric: str, background: bool) -> Callable[[Tensor], np.ndarray]:
    """(n, 3, SIDE, SIDE) -> what Copy Check says of each image, by references that are made here."""
    nodes = {"refs": from_images(metric, images=["works", 0], width=SIDE, height=SIDE)}
    if background:
        nodes["background"] = from_images(metric, images=["behind", 0], width=SIDE, height=SIDE)
    made = {name: out[0] for name, out in host.run(nodes, given).items()}
    links = {"background": ["background", 0]} if background else {}
    asked = {"c": check(vae=["vae", 0], **links)}

    def of(images: Tensor) -> np.ndarray:
        return np.array(host.run(asked, {**given, **made, "i": images.movedim(1, -1).contiguous()})["c"][0])

    return of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copy_recall", description=__doc__.splitlines()[0])
    parser.add_argument("--things", type=int, default=24, help="references, one a kind of thing: %(default)s")
    parser.add_argument("--sscd", type=Path, help="weights of SSCD")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/copies.md, too")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    world, kinds = World(), torch.arange(min(asked.things, len(NAMES)))
    works = world.draw(world.generator(1), kinds, SIDE)
    others, behind = (world.draw(world.generator(s), kinds.repeat(UNRELATED), SIDE) for s in (2, 3))
    rows = []
    with lab_host() as host:
        import folder_paths

        for folder, file in (("checkpoints", LAB_CHECKPOINT), ("copy_detection", asked.sscd)):
            if file:
                folder_paths.add_model_folder_path(folder, str(file.resolve().parent))
        vae = host.run({"m": node("CheckpointLoaderSimple", ckpt_name=LAB_CHECKPOINT.name)})["m"][2]
        network, name = stand_in(host), "the lab's judge (stands in for SSCD)"
        if asked.sscd:
            loader = node("MG_LoadCopyDetector", file=asked.sscd.name)
            (network,), name = host.run({"d": loader})["d"], f"SSCD ({asked.sscd.name})"
        given = {"vae": vae, "descriptor": network, "works": works.movedim(1, -1), "behind": behind.movedim(1, -1)}
        for title, metric, background in (
            ("latent", "latent", False),
            (name, "descriptor", False),
            (f"{name}, with a background", "descriptor", True),
        ):
            of = similarities(host, given, metric, background)
            usual = of(others)
            rows.append({"method": title, **{edit: recall(of(change(works)), usual) for edit, change in EDITS.items()}})
            print(rows[-1], flush=True)
    text = table(rows, [Column("method", "metric"), *(Column(edit, edit, 0, "%") for edit in EDITS)])
    print(text)
    if asked.docs:
        put(ROOT / "docs" / "copies.md", "copy-recall", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
