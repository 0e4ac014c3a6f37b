"""What a family is: how its tiny model is made, and what it is asked with."""

import gc
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file
from torch import Tensor

from support.lab_pack.exact import TextEncoder

BATCH = 2
SIZES: dict[str, Any] = json.loads(Path(__file__).with_name("sizes.json").read_text(encoding="utf-8"))  # of networks
# The host takes an SD2 file for a V model by the spread of this one weight, which our file has no block for.
V_MARK = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
SCALE = 0.7  # of N(0, 1/fan-in): it keeps signals alive through any of the host's networks
TABLES = ("modulation", "adaLN", "emb_pos", "pos_embed")  # tables that are added to what is of size 1


@dataclass(frozen=True)
class Precision:
    """Data types of the weights and of the computation, None: what the host chooses for the weights' type here."""

    name: str
    weights: torch.dtype
    compute: torch.dtype | None = None
    prepare: Callable[[ModelPatcher], ModelPatcher] | None = None  # a state of the loaded model
    patch: Callable[[ModelPatcher], ModelPatcher] | None = None  # other weights: a LoRA
    usual: bool = False  # loaded as CheckpointLoaderSimple does it, which chooses a type of computation


PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", torch.float32, torch.float32),
        Precision("fp16", torch.float16, torch.float16),
        Precision("bf16", torch.bfloat16, torch.bfloat16),
        Precision("fp8", torch.float8_e4m3fn),
    )
}
USUAL = Precision("fp32, as it is usually loaded", torch.float32, usual=True)
EXACT = Precision("exact", torch.float64, torch.float64)  # finite differences of it are far from its rounding


@dataclass(frozen=True)
class Family:
    name: str
    origin: str  # how it came into the host
    weights: Callable[[], dict[str, Tensor]]  # of its file, in fp32
    read: Callable[[Path, Precision], ModelPatcher]  # a MODEL of such a file, as the host's loaders make it
    latent: tuple[int, ...] = (4, 4, 6)
    tokens: int = 8
    width: int = 768
    pooled: int = 0
    cfg: float = 5.0
    patch: dict[str, Any] | None = None  # a node of the host that is put on the model
    more: dict[str, Any] = field(default_factory=dict)  # goes with every prompt

    def write(self, file: Path, precision: Precision) -> None:
        # The host computes the spread of the V mark, which it cannot do in eight bits.
        save_file({k: v if k == V_MARK else v.to(precision.weights) for k, v in self.weights().items()}, file)

    def load(self, file: Path, precision: Precision) -> ModelPatcher:
        with torch.inference_mode():
            model = self.read(file, precision)
        for change in (precision.patch, precision.prepare):
            model = change(model) if change else model
        return model

    def prompt(self, seed: int) -> list:
        return prompt(self.tokens, self.width, seed, self.pooled, **self.more)

    def given(self, file: Path, precision: Precision) -> dict[str, Any]:
        """What the cells' prompts link to. `exact`: a model of the same weights in float64."""
        model, exact = self.load(file, precision), self.load(file, replace(EXACT, patch=precision.patch))
        if precision.usual:  # a flag such as --bf16-unet stores them in another type than the file
            with torch.inference_mode():
                for weight in exact.model.diffusion_model.parameters():
                    weight.copy_(weight.to(model.model.get_dtype()))
        return {
            "m": model,
            "exact": exact,
            "mem": self.prompt(1),
            "null": self.prompt(2),
            "latent": {"samples": torch.zeros(BATCH, *self.latent)},
            "clip": TextEncoder(lambda text: self.prompt(100 + len(text))),  # one of its random prompts
        }

    def made(self, precision: Precision) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            self.write(file, precision)
            given = self.given(file, precision)
            gc.collect()  # nothing may hold the file
            return given


def fill(named: Iterable[tuple[str, Tensor]], seed: int) -> None:
    """Draw every parameter in place: norms at 1, biases small, matrices and kernels by their fan-in."""
    draw = torch.Generator().manual_seed(seed)
    for name, weight in named:
        if not weight.is_floating_point():
            continue
        if name.endswith("scale") or ("norm" in name and name.endswith("weight") and weight.ndim < 2):
            weight.fill_(1.0)
        elif weight.ndim < 2 or (any(part in name for part in TABLES) and not name.endswith(".weight")):
            weight.copy_(0.1 * torch.randn(weight.shape, generator=draw))
        else:
            fan = weight.shape[1:].numel()
            weight.copy_(SCALE * fan**-0.5 * torch.randn(weight.shape, generator=draw))


def prompt(tokens: int, width: int, seed: int, pooled: int = 0, **more: object) -> list:
    draw = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        held = {"pooled_output": torch.randn(1, pooled, generator=draw)} if pooled else {}
        return [[torch.randn(1, tokens, width, generator=draw), {**held, **more}]]


RANK = 2


class LeftBehind(ModelPatcher):
    """Of which nothing fits the device, as under --novram: every weight is fetched, and patched, for each use."""

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        self.model.model_lowvram, self.model.model_loaded_weight_memory = True, 0
        return super().partially_load(device_to, 1, force_patch_weights)

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        super().load(device_to, 1, force_patch_weights, full_load=False)


class HalfLeftBehind(LeftBehind):
    """Of which half fits, as under --lowvram."""

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        ModelPatcher.load(self, device_to, self.model_size() // 2, force_patch_weights, full_load=False)


def with_lora(model: ModelPatcher) -> ModelPatcher:
    """A LoRA of rank 2 on every matrix of the network, as LoraLoaderModelOnly adds it: made under inference mode."""
    draw = torch.Generator().manual_seed(8)
    with torch.inference_mode():
        tensors = {}
        for name, weight in model.model.diffusion_model.named_parameters():
            if weight.ndim == 2:
                key = f"diffusion_model.{name.removesuffix('.weight')}"
                tensors[f"{key}.lora_up.weight"] = 0.05 * torch.randn(len(weight), RANK, generator=draw)
                tensors[f"{key}.lora_down.weight"] = 0.05 * torch.randn(RANK, weight.shape[1], generator=draw)
        names = comfy.lora.model_lora_keys_unet(model.model, {})
        patched = model.clone()
        put = patched.add_patches(comfy.lora.load_lora(tensors, names), 1.0)
    assert put, "the LoRA fits the model"
    return patched


def left_behind(kind: type[ModelPatcher]):
    def prepare(model: ModelPatcher) -> ModelPatcher:
        model.__class__ = kind
        return model

    return prepare


def compiled(model: ModelPatcher) -> ModelPatcher:
    """As the host's TorchCompileModel node makes it, with a back end that needs no compiler."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    made = model.clone()
    set_torch_compile_wrapper(model=made, backend="eager")
    return made


def in_half_precision(model: ModelPatcher) -> ModelPatcher:
    """Computed in fp16 whatever the host would choose, as its node ModelComputeDtype does it."""
    made = model.clone()
    made.set_model_compute_dtype(torch.float16)
    return made


def channels_last(model: ModelPatcher) -> ModelPatcher:
    """Kernels in another memory layout, as --force-channels-last loads them."""
    with torch.inference_mode():
        model.model.diffusion_model.to(memory_format=torch.channels_last)
    return model


FP32 = (torch.float32, torch.float32)
STATES = {
    p.name: p
    for p in (
        Precision("fp16, computed in fp16", torch.float16, torch.float16, in_half_precision),
        Precision("fp32, LoRA", *FP32, patch=with_lora),
        Precision("fp32, LoRA, --lowvram", *FP32, left_behind(HalfLeftBehind), with_lora),
        Precision("fp32, LoRA, --novram", *FP32, left_behind(LeftBehind), with_lora),
        Precision("fp16, LoRA, --novram", torch.float16, torch.float32, left_behind(LeftBehind), with_lora),
        Precision("fp32, compiled", *FP32, compiled),
        Precision("fp32, channels last", *FP32, channels_last),
    )
}
