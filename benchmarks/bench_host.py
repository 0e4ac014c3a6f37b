"""The real host in this process, and the two models that costs are measured on."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.paths import LAB_CHECKPOINT, LAB_NAME, LAB_PACK, PACK, ROOT

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from support.executor import Host

# SD1.5's UNet as the host's model detection describes a checkpoint of it.
SD15 = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "num_heads": 8,
    "num_head_channels": -1,
}


@contextmanager
def host(cuda: bool = False) -> Iterator[Host]:
    """ComfyUI on one CPU thread, with the pack, the lab's pack and the lab checkpoint, in a folder of its own.

    `cuda`: on the host's GPU instead.
    With PyTorch's attention, as the host runs on NVIDIA cards; its choice for the CPU is slower and larger.
    """
    import torch
    from comfy.cli_args import args

    torch.set_num_threads(1)  # several threads wait for each other when anything else runs
    base = Path(tempfile.mkdtemp(prefix="memorization-guard-bench-"))
    args.cpu, args.use_pytorch_cross_attention, args.base_directory = not cuda, True, str(base)
    importlib.import_module("utils.extra_config")  # as the host's main.py, before its nodes.py
    from support.executor import Host

    checkpoints = base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "lab.safetensors").symlink_to(LAB_CHECKPOINT)
    made = None
    try:
        made = Host(base, {LAB_NAME: LAB_PACK, PACK: ROOT})
        yield made
    finally:
        if made is not None:
            made.close()
        shutil.rmtree(base, ignore_errors=True)


def sd15(dtype: Any = None) -> tuple[ModelPatcher, dict[str, Any]]:
    """A model of SD1.5's size with small random weights, and its three prompts, as a loader would make them.

    The host's layers are born with whatever the memory held, so they are filled here; norms are left
    neutral. Nothing about the pictures means anything, everything about the cost does.
    """
    import comfy.model_base
    import comfy.model_management
    import comfy.supported_models
    import torch
    from comfy.model_patcher import ModelPatcher

    management = comfy.model_management
    with torch.inference_mode():
        config = comfy.supported_models.SD15({**SD15, "dtype": dtype or torch.float32})
        config.set_inference_dtype(dtype or torch.float32, None)
        model = comfy.model_base.BaseModel(config)
        draw = torch.Generator().manual_seed(0)
        for name, weight in model.diffusion_model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5 * weight[0].numel() ** -0.5, generator=draw)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
        prompts = {p: [[torch.randn((1, 77, 768), generator=draw), {}]] for p in ("positive", "negative")}
    patcher = ModelPatcher(model, management.get_torch_device(), management.unet_offload_device())
    return patcher, prompts
