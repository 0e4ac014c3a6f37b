"""What a host does to a loaded model: weights that stay behind, compilation, another memory layout, eight bits."""

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher

from support.families.kinds import Precision

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
