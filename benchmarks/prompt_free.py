"""Does Prompt-Free Check tell the lab's memorized images from others? (docs/copies.md)

.host/python -m benchmarks.prompt_free [--docs]

KSampler's images that are copies, by the benchmark's record, and the training images themselves, against images that
cannot be memorized. The threshold is what Calibrate Thresholds takes from eight ordinary images of other captions.
"""

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.copies import training_pairs
from lab.scenes import World
from support.graphs.words import Host
from support.in_process import lab_host
from support.paths import LAB_CHECKPOINT, PACK, ROOT

from .cases import MEMORIZED, ORDINARY, Case
from .checkpoint import Batch, Checkpoint
from .lab.__main__ import WORK
from .lab.configuration import GROUPS, PLAN
from .methods import NONE
from .sampling import Images, sample
from .scores import Column, put, table
from .separation import COPY, COUNT, RECORD

CALIBRATING, SEED, LATE = 8, 7, 0.95  # ordinary images; of the noise; the host's percent of the paper's t 50
ORDINARY_IMAGES, COPIES, TRAINING, NEW = "ordinary prompts", "copies by KSampler", "training images", "new scenes"
OTHERS = "other images of memorized prompts"


def sampled(checkpoint: Checkpoint, wanted: list[tuple[Case, int]]) -> np.ndarray:
    """KSampler's images, from the benchmark's folder where it has them."""
    images = Images(WORK, lambda method, group: range(1000))
    batches = [Batch((case,), (i,), i, case.row % COUNT, COUNT) for case, i in wanted]
    sample(checkpoint, images, [NONE], batches)
    return np.concatenate([images.read(NONE, case, [i])[0] for case, i in wanted])


def sets(checkpoint: Checkpoint) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The ordinary images that calibrate, and the images by what they are: (n, H, W, 3) uint8 each."""
    lines = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    own = [x for x in lines if (x["method"], x["group"]) == (NONE.name, MEMORIZED) and "measured" in x]
    copies = sorted((x["image"], x["prompt"]) for x in own if x["measured"]["copies"] > COPY and x["image"] < 100)
    others = sorted((x["image"], x["prompt"]) for x in own if x["measured"]["copies"] <= COPY and x["image"] < 100)
    world = World()
    new = world.draw(world.generator(SEED), torch.arange(COUNT), PLAN.size).movedim(1, -1)
    found = {
        TRAINING: np.stack([image for _, image in training_pairs()]),
        COPIES: sampled(checkpoint, [(GROUPS[MEMORIZED][row], i) for i, row in copies[::2]]),
        OTHERS: sampled(checkpoint, [(GROUPS[MEMORIZED][row], i) for i, row in others[:COUNT]]),
        ORDINARY_IMAGES: sampled(checkpoint, [(case, 1) for case in GROUPS[ORDINARY][:COUNT]]),
        NEW: (new * 255).round().byte().numpy(),
    }
    return sampled(checkpoint, [(case, 1) for case in GROUPS[ORDINARY][COUNT : COUNT + CALIBRATING]]), found


def auc(above: Tensor, below: Tensor) -> float:
    return float((above[:, None] > below).float().mean())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_free", description=__doc__.splitlines()[0])
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/copies.md, too")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    with lab_host("--force-channels-last", threads=torch.get_num_threads()) as host, torch.inference_mode():
        measures, calibrating = measured(host)
    familiarity: Any = host.module(PACK, "mitigation.familiarity")
    threshold = familiarity.suggested_threshold(calibrating)
    own = measures["familiarity"]
    rows = [
        {
            "set": name,
            "images": len(values),
            "median": float(values.median()),
            "range": f"{float(values.min()):.2f}–{float(values.max()):.2f}",
            "default": float((values >= familiarity.THRESHOLD).sum()),
            "calibrated": float((values >= threshold).sum()),
        }
        for name, values in own.items()
    ]
    columns = [
        Column("set", "images"),
        Column("images", "how many", 0),
        Column("median", "familiarity, median", 2),
        Column("range", "lowest–highest"),
        Column("default", f"counted at {familiarity.THRESHOLD:g}", 0),
        Column("calibrated", f"counted at {threshold:.2f} (calibrated)", 0),
    ]
    compared = [
        {
            "measure": name,
            "copies": auc(of[COPIES], of[ORDINARY_IMAGES]),
            "training": auc(of[TRAINING], of[NEW]),
            "both": auc(torch.cat([of[COPIES], of[TRAINING]]), torch.cat([of[ORDINARY_IMAGES], of[NEW]])),
        }
        for name, of in measures.items()
    ]
    names = ("copies against ordinary prompts", "training images against new scenes", "both against both")
    keys = zip(("copies", "training", "both"), names, strict=True)
    by_measure = [Column("measure", "AUC of"), *(Column(key, name, 3) for key, name in keys)]
    for name, text in (("prompt-free", table(rows, columns)), ("prompt-free-auc", table(compared, by_measure))):
        print(text)
        if asked.docs:
            put(ROOT / "docs" / "copies.md", name, text)
    return 0


def measured(host: Host) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """Each measure of each set (n,), and the familiarity of the images that calibrate."""
    checkpoint = Checkpoint(host, LAB_CHECKPOINT, PLAN)
    calibrating, images = sets(checkpoint)
    check, own = (checkpoint.module(name) for name in ("methods.prompt_free_check", "mitigation.familiarity"))
    kept: list[Tensor] = []
    middle = checkpoint.model.model.diffusion_model.middle_block[-1]
    middle.register_forward_hook(lambda module, given, out: kept.append(out.float()))

    encode, latents = check.encode, dict[bytes, Tensor]()

    def encoded_once(vae: Any, image: Tensor, *asked: str) -> Tensor:
        key = hashlib.sha256(image.numpy().tobytes()).digest()
        if key not in latents:
            latents[key] = encode(vae, image, *asked)
        return latents[key]

    check.encode = encoded_once  # each image is measured twice

    def restored(pixels: np.ndarray, **asked: float) -> list[Tensor]:
        parts = [torch.from_numpy(image).float() / 255 for image in pixels]
        return list(
            check.restorations(checkpoint.model, checkpoint.clip, checkpoint.vae, parts, SEED, "benchmark", **asked)
        )

    def bottleneck(pixels: np.ndarray) -> Tensor:
        kept.clear()
        restored(pixels, noises=2, percent=LATE)
        return torch.stack([rows[:2].flatten(1).std(dim=1).mean() for rows in kept])

    measures: dict[str, Callable[[list[Tensor]], Tensor]] = {
        "familiarity": lambda found: torch.cat([own.familiarity(*both) for both in found]),
        "likeness of the restorations, without the mirror image": lambda found: torch.cat(
            [1 / own.disagreement(both[0]) for both in found]
        ),
    }
    found: dict[str, dict[str, Tensor]] = {
        name: {} for name in (*measures, "the paper's: spread of the bottleneck, t 50")
    }
    for name, pixels in images.items():
        made = restored(pixels)
        for measure, of in measures.items():
            found[measure][name] = of(made)
        found["the paper's: spread of the bottleneck, t 50"][name] = bottleneck(pixels)
        print(name, [round(x, 2) for x in found["familiarity"][name].tolist()], flush=True)
    return found, measures["familiarity"](restored(calibrating))


if __name__ == "__main__":
    sys.exit(main())
