"""Small files with random weights that fit the small lab: a ControlNet and a LoRA, in the host's own formats."""

import comfy.cldm.cldm
import comfy.ops
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import load_file, save_file

from support.executor import Host
from support.graphs import Node, node
from support.graphs.checkpoint import MEMORIZED, SIZE, load, text
from support.graphs.features import Feature
from support.lab_pack.arch import SMALL
from support.paths import SMALL_CHECKPOINT

LORA = "tiny_lora.safetensors"
CONTROL = "tiny_control.safetensors"
LAYERS = {  # weight -> (rows, columns)
    "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k": (64, 128),
    "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_v": (128, 128),
    "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q": (128, 128),
    "diffusion_model.output_blocks.1.1.transformer_blocks.0.attn2.to_v": (128, 128),
    "diffusion_model.middle_block.0.emb_layers.1": (128, 256),
}


def save_lora(host: Host) -> None:
    draw = torch.Generator().manual_seed(1)
    tensors = {}
    for name, (rows, columns) in LAYERS.items():
        tensors[f"{name}.lora_up.weight"] = 0.4 * torch.randn(rows, 2, generator=draw)
        tensors[f"{name}.lora_down.weight"] = 0.4 * torch.randn(2, columns, generator=draw)
    (host.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    save_file(tensors, host.base / "models" / "loras" / LORA)


def save_control(host: Host) -> None:
    """A ControlNet of the lab's architecture; its zero convolutions are not zero, so that it does something."""
    net = comfy.cldm.cldm.ControlNet(
        **{k: v for k, v in SMALL.unet.items() if k != "out_channels"},
        hint_channels=3,
        operations=comfy.ops.manual_cast,
    )
    draw = torch.Generator().manual_seed(2)

    def weights(name: str, shape: torch.Size) -> torch.Tensor:
        if name.endswith("bias"):
            return torch.zeros(shape)
        if len(shape) == 1:
            return torch.ones(shape)
        return torch.randn(shape, generator=draw) * shape[1:].numel() ** -0.5

    (host.base / "models" / "controlnet").mkdir(parents=True, exist_ok=True)
    tensors = {k: weights(k, v.shape) for k, v in net.state_dict().items()}
    save_file(tensors, host.base / "models" / "controlnet" / CONTROL)


def hints(batch: int) -> torch.Tensor:
    """Control images (batch, 8·SIZE, 8·SIZE, 3), each its own: darker from one to the next."""
    grain = torch.rand(batch, 8 * SIZE, 8 * SIZE, 3, generator=torch.manual_seed(3))
    return (grain + 2 * torch.arange(batch).flip(0).view(-1, 1, 1, 1)) / (2 * batch)


def controlled(batch: int, strength: float = 0.7) -> Feature:
    """A ControlNet on both prompts; with `batch` > 1 a hint of its own for every sample."""
    links = {"positive": ["mem", 0], "negative": ["null", 0], "control_net": ["net", 0], "image": ["hint", 0]}
    pos = node("ControlNetApplyAdvanced", strength=strength, start_percent=0.0, end_percent=1.0, **links)
    nodes = {"net": node("ControlNetLoader", control_net_name=CONTROL), "pos": pos}
    return Feature(nodes, {"positive": ["pos", 0], "negative": ["pos", 1]}, lambda _: {"hint": hints(batch)})


def scaled_fp8(host: Host) -> ModelPatcher:
    prefix = "model.diffusion_model."
    tensors = {k.removeprefix(prefix): v for k, v in load_file(SMALL_CHECKPOINT).items() if k.startswith(prefix)}
    for name in [k for k, v in tensors.items() if v.ndim == 2 and k.endswith(".weight")]:
        scale = tensors[name].float().abs().max() / 448
        tensors[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
        tensors[name.replace(".weight", ".scale_weight")] = scale.view(1)
    tensors["scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "lab_fp8.safetensors")
    loader = node("UNETLoader", unet_name="lab_fp8.safetensors", weight_dtype="default")
    return host.run({"loader": loader})["loader"][0]


def quantized(host: Host) -> ModelPatcher:
    quant_ops = pytest.importorskip("comfy.quant_ops", reason="an older host has none")
    model = load(host)["m"]
    with torch.inference_mode():
        layer = model.model.diffusion_model.get_submodule("middle_block.1.transformer_blocks.0.attn2.to_q")
        held = quant_ops.QuantizedTensor.from_float(layer.weight.detach().clone(), "TensorCoreFP8Layout")
        layer.weight = torch.nn.Parameter(held, requires_grad=False)
    return model


def lora(model: str, strength: float) -> Node:
    own = {"lora_name": LORA, "strength_model": strength, "strength_clip": 1.0}
    return node("LoraLoader", model=[model, 0], clip=["clip", 0], **own)


def with_hook() -> Node:
    own = {"strength": 1.0, "set_cond_area": "default", "hooks": ["hook", 0]}
    return node("ConditioningSetProperties", cond_NEW=["mem", 0], **own)


HOOK = node("CreateHookLora", lora_name=LORA, strength_model=1.0, strength_clip=1.0)
CLIP_HOOKS = node("SetClipHooks", clip=["clip", 0], hooks=["hook", 0], apply_to_conds=True, schedule_clip=False)
EXTRAS = {
    "ControlNet": controlled(1),
    "ControlNet, a hint a sample": controlled(2),
    "LoRA": Feature({"lora": lora("m", 1.0)}, {"model": ["lora", 0]}),
    "LoRA on the positive": Feature({"hook": HOOK, "pos": with_hook()}, {"positive": ["pos", 0]}),
    "hooks through the CLIP": Feature(
        {"hook": HOOK, "hooked": CLIP_HOOKS, "pos": text(MEMORIZED, "hooked"), "neg": text("", "hooked")},
        {"positive": ["pos", 0], "negative": ["neg", 0]},
    ),
}
