"""The same words on the small lab, which is given to a run as `m`, `clip` and `vae`."""

import shutil
from pathlib import Path
from typing import Any

from support.graphs.words import Host, Link, Node, Prompt, Words, node
from support.paths import SMALL_CHECKPOINT, SMALL_LAB

CLIP, VAE = ["checkpoint", 1], ["checkpoint", 2]
WIRES: dict[str, Link] = {
    "model": ["checkpoint", 0],
    "positive": ["positive", 0],
    "negative": ["negative", 0],
    "latent_image": ["latent", 0],
}
MEMORIZED, ORDINARY = "Harbour at Dawn, a red disc", "a blue ring"
STEPS, SIZE, BATCH = 4, 8, 2  # 64×64 pixels: half the cost of its own 96×96
LINKS: dict[str, Any] = {"model": ["m", 0], "positive": ["mem", 0], "negative": ["null", 0]}
LINKS["latent_image"] = ["latent", 0]
WORDS = Words(LINKS, {"steps": STEPS})
ksampler, deferred, patch, guider = WORDS.ksampler, WORDS.deferred, WORDS.patch, WORDS.guider
optimizer, detector, calibrate, amg = WORDS.optimizer, WORDS.detector, WORDS.calibrate, WORDS.amg
stage, custom = WORDS.stage, WORDS.custom
NO_BASIN = {"memorized_threshold": 10.0}
# AMG with nothing but its gradient, at every step.
MEASURED = {"threshold_min": -1.0, "threshold_max": -1.0, "threshold_schedule": "constant", "despecification": 0.0}
START, SWITCH = 0.5, 2  # guidance that starts at START begins with step SWITCH of STEPS


def load(host: Host, file: Path = SMALL_CHECKPOINT) -> dict[str, Any]:
    """A lab's checkpoint as CheckpointLoaderSimple gives it, ready to be given to prompts."""
    place(host, "checkpoints", file)
    model, clip, vae = host.run({"loader": loader(file)})["loader"]
    return {"m": model, "clip": clip, "vae": vae}


def loader(file: Path = SMALL_CHECKPOINT) -> Node:
    return node("CheckpointLoaderSimple", ckpt_name=file.name)


def place(host: Host, folder: str, file: Path) -> None:
    (host.base / "models" / folder).mkdir(parents=True, exist_ok=True)
    link = host.base / "models" / folder / file.name
    if not link.exists():
        link.symlink_to(file)


def training_images(host: Host, folder: str, count: int = 16) -> Path:
    """The first of the 16 memorized images with their captions, as a folder of the host's input directory."""
    return copy_training_images(host.base / "input" / folder, count)


def copy_training_images(folder: Path, count: int = 16) -> Path:
    others = lambda _, names: [name for name in names if int(name[:2]) >= count]  # noqa: E731
    return Path(shutil.copytree(SMALL_LAB / "training_images", folder, dirs_exist_ok=True, ignore=others))


def text(words: str, clip: str = "clip") -> Node:
    return node("CLIPTextEncode", clip=[clip, 0], text=words)


def empty(batch: int, side: int = SIZE) -> Node:
    return node("EmptyLatentImage", width=8 * side, height=8 * side, batch_size=batch)


def base(batch: int = BATCH, side: int = SIZE) -> Prompt:
    return {"mem": text(MEMORIZED), "ord": text(ORDINARY), "null": text(""), "latent": empty(batch, side)}


def start(text: str, size: int, batch: int, checkpoint: str = "small_lab.safetensors") -> Prompt:
    """The nodes that `WIRES`, `CLIP` and `VAE` lead to."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "positive": node("CLIPTextEncode", clip=CLIP, text=text),
        "negative": node("CLIPTextEncode", clip=CLIP, text=""),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=batch),
    }
