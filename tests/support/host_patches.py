"""Every node of the host that takes a MODEL and gives one, with small real inputs and a network that it is made for."""

from typing import Any

import comfy.model_management as management
import comfy.ops
import comfy.sd
import comfy.supported_models as supported
import comfy.utils
import torch
from comfy.clip_vision import Output
from comfy.ldm.wan.vae import WanVAE
from comfy.model_patcher import ModelPatcher

import nodes
from support.executor import Host
from support.families import files
from support.families.kinds import PRECISIONS, Family, fill
from support.graphs.checkpoint import MEMORIZED, ORDINARY, SIZE, text
from support.graphs.words import Prompt, node
from support.lab_files import LORA
from support.patch_sweep import Bench

QWEN_SIZE = {"image_model": "qwen_image", "num_layers": 2, "num_attention_heads": 1, "joint_attention_dim": 24}
FLUX = files.family("Flux", supported.FluxSchnell, files.DEEPER, **files.FLUX_ASKED)
QWEN = files.family("Qwen", supported.QwenImage, QWEN_SIZE, latent=(16, 1, 4, 6), width=24)
FAMILIES: dict[str, Family] = {  # all others: the lab checkpoint
    "ChromaRadianceOptions": FLUX,
    "ContextWindowsManual": files.VIDEO,
    "ModelSamplingAuraFlow": files.SD3,
    "ModelSamplingFlux": FLUX,
    "ModelSamplingLTXV": FLUX,
    "ModelSamplingSD3": files.SD3,
    "ModelSamplingStableCascade": files.STAGE_C,
    "QwenImageDiffsynthControlnet": QWEN,
    "ScaleROPE": files.VIDEO,
    "SkipLayerGuidanceDiT": FLUX,
    "SkipLayerGuidanceDiTSimple": FLUX,
    "SkipLayerGuidanceSD3": files.SD3,
    "USOStyleReference": FLUX,
    "WanContextWindowsManual": files.VIDEO,
    "wanBlockSwap": files.VIDEO,
}
ALWAYS: dict[str, Any] = {"start_percent": 0.0, "end_percent": 1.0}
CACHE: dict[str, Any] = {**ALWAYS, "reuse_threshold": 1.0}
LAYERS: dict[str, Any] = {"double_layers": "0", "single_layers": "1"}
SETTINGS: dict[str, dict[str, Any]] = {  # where the defaults do nothing to a few steps of a small network
    "ChromaRadianceOptions": {"nerf_tile_size": 32},
    "ContextWindowsManual": {"context_length": 2, "context_overlap": 1, "dim": 2},
    "EasyCache": CACHE,
    "FreSca": {"freq_cutoff": 2},
    "HyperTile": {"tile_size": 32},
    "LazyCache": CACHE,
    "ModelComputeDtype": {"dtype": "fp32"},
    "ModelMergeAdd": {"model2": ["difference", 0]},
    "ModelMergeSubtract": {"model2": ["difference", 0]},
    "ModelSamplingDiscrete": {"sampling": "lcm"},
    "ModelSamplingSD3": {"shift": 1.5},
    "ModelSamplingStableCascade": {"shift": 1.0},
    "PatchModelAddDownscale": {"block_number": 1, "end_percent": 1.0},
    "ScaleROPE": {"scale_x": 2.0},
    "SkipLayerGuidanceDiT": {**ALWAYS, **LAYERS},
    "SkipLayerGuidanceDiTSimple": LAYERS,
    "SkipLayerGuidanceSD3": {**ALWAYS, "layers": "0"},
    "TrainLoraNode": {"steps": 1, "training_dtype": "fp32", "lora_dtype": "fp32"},
    "UNetCrossAttentionMultiply": {"k": 0.5},
    "UNetSelfAttentionMultiply": {"k": 0.5},
    "UNetTemporalAttentionMultiply": {"cross_structural": 0.5},
    "WanContextWindowsManual": {"context_length": 5, "context_overlap": 2},
}
FILES = {"hypernetwork_name": "tiny.pt", "lora_name": LORA}  # made below, and by lab_files
SOCKETS = {  # type -> what is given by this name
    "CLIP": "clip",
    "CLIP_VISION_OUTPUT": "seen",
    "CONDITIONING": "null",
    "IMAGE": "image",
    "LATENT": "some",
    "LATENT_OPERATION": "sharpen",
    "LORA_MODEL": "lora",
    "MODEL": "m",
    "MODEL_PATCH": "network",
    "VAE": "vae",
}


def patches() -> dict[str, type]:
    found = {
        name: kind
        for name, kind in nodes.NODE_CLASS_MAPPINGS.items()
        if "MODEL" in kind.RETURN_TYPES
        and "MODEL" in [spec[0] for spec in _inputs(kind).values()]
        and getattr(kind, "RELATIVE_PYTHON_MODULE", "nodes").startswith(("nodes", "comfy_extras."))
    }
    return dict(sorted(found.items()))


def _inputs(kind: type) -> dict[str, tuple]:
    given = kind.INPUT_TYPES()
    return {**given.get("required", {}), **given.get("optional", {})}


def graph(name: str) -> Prompt:
    inputs, merges = {}, sum(spec[0] == "MODEL" for spec in _inputs(patches()[name]).values()) > 1
    for id_, (kind, *more) in _inputs(patches()[name]).items():
        options = more[0] if more else {}
        choices = kind if isinstance(kind, list) else options.get("options", [])
        if id_ in SETTINGS.get(name, {}):
            inputs[id_] = SETTINGS[name][id_]
        elif id_ in FILES:
            inputs[id_] = FILES[id_]
        elif not isinstance(kind, list) and kind in SOCKETS:
            inputs[id_] = ["other" if id_ == "model2" else SOCKETS[kind], 0]
        elif "default" in options or choices:
            inputs[id_] = 0.5 if merges and kind == "FLOAT" else options.get("default", choices[0] if choices else None)
        elif id_ not in patches()[name].INPUT_TYPES().get("optional", {}):
            raise LookupError(f"the sweep has nothing small for the input {id_}: {kind}")
    sharpen = node("LatentOperationSharpen", sharpen_radius=2, sigma=1.0, alpha=0.5)
    return {"p": node(name, **inputs)} | ({"sharpen": sharpen} if ["sharpen", 0] in inputs.values() else {})


def subject(host: Host, checkpoint: dict[str, Any], name: str) -> Bench:
    if name in FAMILIES:
        family = FAMILIES[name]
        given = family.made(PRECISIONS["fp32"])
        prompts, latent = [family.prompt(1), family.prompt(3)], family.latent
    else:
        words = host.run({str(i): text(t) for i, t in enumerate((MEMORIZED, ORDINARY, ""))}, checkpoint)
        prompts, latent = [words[i][0] for i in "01"], (4, SIZE, SIZE)
        given = {**checkpoint, "null": words["2"][0], **_for_lab(host, checkpoint)}
    mask = torch.linspace(0, 1, 2 * SIZE * SIZE).view(2, SIZE, SIZE) if name == "DifferentialDiffusion" else None
    cfg = 1.0 if name == "USOStyleReference" else 5.0  # its patch has one row, and fails beside a negative prompt
    steps = 6 if name in ("EasyCache", "LazyCache") else 2
    image = torch.linspace(0, 1, 32 * 48 * 3).view(1, 32, 48, 3)
    return Bench(host, {**given, **_networks(name), "image": image}, prompts, latent, cfg, mask, steps)


def _for_lab(host: Host, checkpoint: dict[str, Any]) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(4)
    linear = lambda n: {"linear.weight": 0.2 * torch.randn(n, n, generator=draw), "linear.bias": torch.zeros(n)}  # noqa: E731
    folder = host.base / "models" / "hypernetworks"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({n: [linear(n), linear(n)] for n in (64, 128)}, folder / "tiny.pt")
    lora = comfy.utils.load_torch_file(str(host.base / "models" / "loras" / LORA))
    other = node("LoraLoaderModelOnly", model=["m", 0], lora_name=LORA, strength_model=1.0)
    apart = node("ModelMergeSubtract", model1=["other", 0], model2=["m", 0], multiplier=1.0)
    models = host.run({"other": other, "difference": apart}, checkpoint)
    return {"lora": lora, **{name: model[0] for name, model in models.items()}}


def _networks(name: str) -> dict[str, Any]:
    """Networks beside the model, of the host's classes: its loader makes none as small."""
    if name not in ("USOStyleReference", "QwenImageDiffsynthControlnet"):
        return {}
    import comfy_extras.nodes_model_patch as side  # older hosts have none

    if name == "USOStyleReference":
        made = side.SigLIPMultiFeatProjModel(5, 2, 16, 64, operations=comfy.ops.manual_cast)
        seen = Output()
        seen.all_hidden_states = torch.randn(1, 24, 5, 16, generator=torch.manual_seed(6))
        seen.penultimate_hidden_states = seen.all_hidden_states[:, -2]
        more = {"seen": seen}
    else:
        made = side.QwenImageBlockWiseControlNet(2, dim=128, operations=comfy.ops.manual_cast)
        plan = {"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}
        held = WanVAE(dim=4, z_dim=16, **plan).state_dict()
        fill(held.items(), 7)
        more = {"vae": comfy.sd.VAE(sd=held)}
    with torch.inference_mode():
        fill(made.named_parameters(), 6)
    return {"network": ModelPatcher(made, management.get_torch_device(), management.unet_offload_device()), **more}
