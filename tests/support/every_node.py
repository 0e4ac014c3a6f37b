"""A prompt for every node of the pack that works, small enough to run hundreds of times.

`n` is the node itself; `out`, where there is one, samples or draws with what it gives. The others need to be given
`works`, `clip`, `vae`, `i` (images), `copies` (images like some of them), `finished` images, `curve`, and a UNet with
its text encoder (`unet`, `words`); `prepare` makes all of it.
"""

from typing import Any

import torch
from safetensors.torch import save_file

from support import graphs
from support.copy_detectors import random_sscd
from support.executor import Host
from support.graphs import checkpoint, node
from support.graphs.words import Prompt
from support.lab_pack import exact

SET, DETECTOR, FOLDER, LORA = "every node", "every_node.safetensors", "every node", "every_node.safetensors"
SHORT = {"steps": 3}
GUIDED = {"model": ["n", 0], **SHORT}
REFS = graphs.references("a ring")
IMAGES = graphs.from_images("nL2", captions="a ring", vae=["vae", 0])
CHECK = graphs.check(images=["copies", 0], vae=["vae", 0])
KEPT = {"s": graphs.keep("n", "made of them")}
WORDS = {"model": graphs.MODEL, "clip": ["clip", 0], "latent_image": graphs.LATENT}
AUDITED = {"model": graphs.MODEL, "clip": ["clip", 0], "vae": ["vae", 0], "latent_image": graphs.LATENT}
AUDIT = node(
    "MG_LoRAAudit", **AUDITED, references=["refs", 0], loras=LORA, strengths="0", captions="memorized", **SHORT
)
GUARD = node("MG_Guard", model=graphs.MODEL, clip=["clip", 0], folder=FOLDER, vae=["vae", 0])
PROMPT_FREE = node(
    "MG_PromptFreeCheck", model=graphs.MODEL, clip=["clip", 0], vae=["vae", 0], images=["finished", 0], noises=2
)
REANCHOR = node("MG_PromptReanchor", model=graphs.MODEL, reworded=graphs.ORDINARY)
UNET = {"w": checkpoint.text("a blue ring", "words"), "l": checkpoint.empty(2)}
UNET["out"] = graphs.ksampler(**GUIDED, positive=["w", 0], negative=["w", 0], latent_image=["l", 0])
EVERY_NODE: dict[str, Prompt] = {
    "MG_Guard": {"n": GUARD, "out": graphs.ksampler(**GUIDED)},
    "MG_NoiseOptimizer": {
        "n": graphs.optimizer(max_iterations=2, candidates=2),
        "out": graphs.deferred("off", noise=["n", 0], steps=1),
    },
    "MG_BasinEscapeDetector": {"n": graphs.detector(**SHORT), "out": node("MG_PlotCurve", curve=["n", 3])},
    "MG_DeferredCFGKSampler": {"n": graphs.deferred(**SHORT), "out": node("MG_PlotCurve", curve=["n", 1])},
    "MG_DeferredCFGGuider": {"n": graphs.guider(), **graphs.custom(["n", 0], **SHORT)},
    "MG_DeferredCFG": {"n": graphs.patch(), "out": graphs.ksampler(**GUIDED)},
    "MG_AMGGuidance": {"refs": REFS, "n": graphs.amg(), "out": graphs.ksampler(**GUIDED)},
    "MG_Calibrate": {"n": graphs.calibrate("memorized\nordinary")},
    "MG_PromptCheck": {"n": node("MG_PromptCheck", **WORDS, text="memorized ordinary", rewordings="ordinary")},
    "MG_PromptFreeCheck": {"n": PROMPT_FREE},
    "MG_PromptReanchor": {"n": REANCHOR, "out": graphs.ksampler(**GUIDED)},
    "MG_AttentionAttenuation": {**UNET, "n": node("MG_AttentionAttenuation", model=["unet", 0], variant="GUARD")},
    "MG_PlotCurve": {"n": node("MG_PlotCurve", curve=["curve", 0])},
    "MG_ReferencesFromFolder": {"n": graphs.from_folder(FOLDER, 64), **KEPT},
    "MG_ReferencesFromImages": {"n": IMAGES, **KEPT},
    "MG_ReferencesFromLatents": {"n": REFS, **KEPT},
    "MG_SaveReferences": {"refs": REFS, "n": graphs.keep("refs", SET)},
    "MG_LoadReferences": {"n": node("MG_LoadReferences", file=f"{SET}.safetensors"), **KEPT},
    "MG_LoadCopyDetector": {"n": node("MG_LoadCopyDetector", file=DETECTOR)},
    "MG_LoRAAudit": {"refs": graphs.from_images(images=["copies", 0]), "n": AUDIT},
    "MG_CopyCheck": {"refs": graphs.from_images(images=["copies", 0]), "n": CHECK},
}


def prepare(host: Host, vae: Any) -> dict[str, Any]:
    """What the prompts are given, with the files that they read in their places."""
    detectors = host.base / "models" / "copy_detection"
    detectors.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.clone() for name, weight in random_sscd().state_dict().items()}, detectors / DETECTOR)
    (host.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    save_file({"fits no layer": torch.zeros(1)}, host.base / "models" / "loras" / LORA)
    checkpoint.training_images(host, FOLDER, 3)
    draw = torch.Generator().manual_seed(5)
    images = torch.rand(52, 32, 32, 3, generator=draw)  # nL2 needs more than 50
    small = checkpoint.load(host)
    given = {
        "unet": small["m"],
        "words": small["clip"],
        "works": {"samples": torch.cat([exact.x_mem(), exact.x_mem() + 0.5])},
        "clip": exact.TextEncoder(),
        "vae": vae,
        "i": images,
        "finished": torch.rand(2, 64, 64, 3, generator=draw),
        "copies": images[:3] * 0.9 + 0.1 * torch.rand(3, 32, 32, 3, generator=draw),
        "curve": host.run({"lab": graphs.lab(2), "d": graphs.detector(steps=4)})["d"][3],
    }
    host.run(EVERY_NODE["MG_SaveReferences"], {"works": given["works"]})
    return given


def run(host: Host, prompt: Prompt, given: dict[str, Any]) -> dict[str, list[Any]]:
    whole = {"lab": graphs.lab(2), **prompt}
    linked = {v[0] for n in prompt.values() for v in n["inputs"].values() if isinstance(v, list) and v}
    return host.run(whole, {name: given[name] for name in linked if name in given})
