"""The networks of the lab checkpoint, all the host's own: its tiny autoencoder, its UNet and its CLIP text model."""

import math

import torch
from comfy.cli_args import args as host_args

if not torch.cuda.is_available():
    host_args.cpu = True  # the host raises on a machine without an accelerator

import comfy.ops
from comfy.ldm.modules.attention import attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.taesd.taesd import TAESD
from safetensors.torch import load_file
from torch import Tensor, nn

from support.lab_pack import arch
from support.paths import LAB_CHECKPOINT

SD_SCALE = 0.18215  # latents have unit variance; the file carries SD1.x's factor
PREFIXES = {"unet.": "model.diffusion_model.", "text.": "cond_stage_model.transformer.", "vae.": "first_stage_model."}


def load_vae() -> TAESD:
    """The VAE of the lab checkpoint; its `taesd_encoder` and `taesd_decoder` work on images in [0, 1]."""
    prefix = PREFIXES["vae."]
    vae = TAESD()
    own = {k: v.float() for k, v in load_file(LAB_CHECKPOINT).items() if k.startswith(prefix)}
    vae.load_state_dict({k.removeprefix(prefix): v for k, v in own.items()})
    return vae.eval()


class TextToImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        ops = comfy.ops.disable_weight_init
        self.unet = UNetModel(**arch.LAB512.unet, dtype=torch.float32, operations=ops)
        self.text = arch.TextModel(arch.LAB512.text_config(), torch.float32, "cpu", ops)

    def context(self, tokens: Tensor) -> Tensor:
        """(n, TOKENS, WIDTH): what the host's CLIPTextEncode gives, without its in-place additions."""
        model = self.text.text_model
        x = model.embeddings(tokens, dtype=torch.float32)
        mask = torch.full((x.shape[1], x.shape[1]), -1e9, device=x.device).triu_(1)
        for layer in model.encoder.layers:
            x = x + layer.self_attn(layer.layer_norm1(x), mask, attention_pytorch)
            x = x + layer.mlp(layer.layer_norm2(x))
        return model.final_layer_norm(x)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.unet(x, t, context=context, transformer_options={})


def token_ids(captions: list[str]) -> Tensor:
    tokenizer = arch.tokenizer(arch.LAB512)
    return torch.tensor([[t for t, _ in tokenizer.tokenize_with_weights(text)[0]] for text in captions])


def initialise(model: nn.Module) -> None:
    """The host's layers come with uninitialised memory: torch's own defaults, residuals small or at zero."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for weight in (module.weight, module.bias):
                if weight is not None:
                    nn.init.uniform_(weight, -bound, bound)
            if name.endswith(("out_layers.3", "proj_out", "unet.out.2")):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
            if name.endswith("conv.4"):  # the last of a residual block of the VAE: a deep ReLU net trains at once
                module.weight.data.mul_(0.1)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.05)


def checkpoint_file(model: nn.Module, vae: TAESD) -> dict[str, Tensor]:
    weights = {**model.state_dict(), **{f"vae.{k}": v for k, v in vae.state_dict().items()}}
    weights["vae.vae_scale"] = torch.tensor(SD_SCALE)
    named = {PREFIXES[k[: k.index(".") + 1]] + k[k.index(".") + 1 :]: v for k, v in weights.items()}
    return {k: v.detach().half().cpu().contiguous() for k, v in named.items()}
