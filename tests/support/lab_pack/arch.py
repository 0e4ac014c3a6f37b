"""The architecture of the lab checkpoint: SD1.x of the host, small, with a small CLIP of its own.

Everything is the host's own class with other sizes, so that CheckpointLoaderSimple, CLIPTextEncode,
KSampler, LoRA loaders and VAEDecode treat the file like any SD1.x checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import comfy.clip_model
import comfy.ops
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base

WIDTH = 128  # of the text model, and so of the cross-attention
MODEL_CHANNELS = 64
TOKENS = 16  # a longer prompt goes in several sections, as with CLIP's 77
UNET = {
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": MODEL_CHANNELS,
    "num_res_blocks": [2, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1, 1],
    "transformer_depth_output": [1, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": WIDTH,
    "use_linear_in_transformer": False,
    "num_heads": 4,
    "num_head_channels": -1,
}
TOKENIZER = Path(__file__).parent / "tokenizer"


class LabTokenizer(comfy.sd1_clip.SDTokenizer):
    """CLIP's tokenizer with a vocabulary of letters and of the lab's words."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):  # noqa: B006 - the host's signature
        super().__init__(
            tokenizer_path=str(TOKENIZER),
            max_length=TOKENS,
            embedding_directory=embedding_directory,
            embedding_size=WIDTH,
            tokenizer_data=tokenizer_data,
        )


class LabSD1Tokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data={}):  # noqa: B006
        super().__init__(embedding_directory, tokenizer_data, tokenizer=LabTokenizer)


def text_config() -> dict:
    words = vocabulary()
    return {
        "hidden_act": "quick_gelu",
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": TOKENS,
        "vocab_size": len(words),
        "eos_token_id": words["<|endoftext|>"],
    }


def vocabulary() -> dict[str, int]:
    return json.loads((TOKENIZER / "vocab.json").read_text(encoding="utf-8"))


class LabTextModel(comfy.clip_model.CLIPTextModel):
    """The host's CLIP text model with an embedding table of the lab's vocabulary."""

    def __init__(self, config_dict, dtype, device, operations):
        super().__init__(config_dict, dtype, device, operations)
        table = operations.Embedding(config_dict["vocab_size"], WIDTH, dtype=dtype, device=device)
        self.set_input_embeddings(table)


class LabClip(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
        words = vocabulary()
        end = words["<|endoftext|>"]
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=TOKENS,
            textmodel_json_config=text_config(),
            model_class=LabTextModel,
            special_tokens={"start": words["<|startoftext|>"], "end": end, "pad": end},
            return_projected_pooled=False,
            model_options=model_options,
        )


class LabSD1Clip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
        super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=LabClip)


class LabSD(comfy.supported_models.SD15):
    """SD1.x at a size that two CPU cores can train and sample."""

    unet_config: ClassVar[dict] = {
        "context_dim": WIDTH,
        "model_channels": MODEL_CHANNELS,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
    }
    unet_extra_config: ClassVar[dict] = {"num_heads": UNET["num_heads"], "num_head_channels": -1}

    def clip_target(self, state_dict={}):  # noqa: B006
        return comfy.supported_models_base.ClipTarget(LabSD1Tokenizer, LabSD1Clip)


def register() -> None:
    """Make the host's checkpoint loader recognise the lab checkpoint."""
    known = comfy.supported_models.models
    if not any(model.__name__ == LabSD.__name__ for model in known):
        known.append(LabSD)
