"""The architectures of the two lab checkpoints: SD1.x of the host, small, each with a small CLIP of its own."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import comfy.clip_model
import comfy.ops
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base


@dataclass(frozen=True)
class Lab:
    """A lab checkpoint. The host recognises its file by `width`, which no other SD1.x model has."""

    name: str
    width: int  # of the text model, and so of the cross-attention
    tokens: int  # a longer prompt goes in several sections, as with CLIP's 77
    blocks: dict[str, Any]  # of the UNet

    @property
    def unet(self) -> dict[str, Any]:
        return {**COMMON, **self.blocks, "context_dim": self.width}

    @property
    def tokenizer(self) -> Path:
        return Path(__file__).parent / "tokenizers" / self.name

    def vocabulary(self) -> dict[str, int]:
        return json.loads((self.tokenizer / "vocab.json").read_text(encoding="utf-8"))

    def text_config(self) -> dict[str, Any]:
        words = self.vocabulary()
        return {
            "hidden_act": "quick_gelu",
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "max_position_embeddings": self.tokens,
            "vocab_size": len(words),
            "eos_token_id": words["<|endoftext|>"],
        }


SIZES: dict[str, Any] = json.loads(Path(__file__).with_name("sizes.json").read_text(encoding="utf-8"))
COMMON = SIZES["of both UNets"]
SMALL, LAB512 = (Lab(name, **SIZES[name]) for name in ("small_lab", "lab512"))


def tokenizer(lab: Lab, embedding_directory=None, tokenizer_data={}):  # noqa: B006 - the host's signature
    return comfy.sd1_clip.SDTokenizer(
        tokenizer_path=str(lab.tokenizer),
        max_length=lab.tokens,
        embedding_directory=embedding_directory,
        embedding_size=lab.width,
        tokenizer_data=tokenizer_data,
    )


class TextModel(comfy.clip_model.CLIPTextModel):
    def __init__(self, config_dict, dtype, device, operations):
        super().__init__(config_dict, dtype, device, operations)
        size = config_dict["vocab_size"], config_dict["hidden_size"]
        self.set_input_embeddings(operations.Embedding(*size, dtype=dtype, device=device))


def text_encoder(lab: Lab, device="cpu", dtype=None, model_options={}):  # noqa: B006
    words = lab.vocabulary()
    end = words["<|endoftext|>"]
    return comfy.sd1_clip.SDClipModel(
        device=device,
        dtype=dtype,
        max_length=lab.tokens,
        textmodel_json_config=lab.text_config(),
        model_class=TextModel,
        special_tokens={"start": words["<|startoftext|>"], "end": end, "pad": end},
        return_projected_pooled=False,
        model_options=model_options,
    )


def family(lab: Lab) -> type[comfy.supported_models.SD15]:
    """SD1.x at a lab's size, as the host's loader knows model families."""

    class LabTokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data={}):  # noqa: B006
            super().__init__(embedding_directory, tokenizer_data, tokenizer=partial(tokenizer, lab))

    class LabClip(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
            encoder = partial(text_encoder, lab)
            super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=encoder)

    class LabSD(comfy.supported_models.SD15):
        unet_config: ClassVar[dict] = {
            "context_dim": lab.width,
            "model_channels": COMMON["model_channels"],
            "use_linear_in_transformer": False,
            "adm_in_channels": None,
            "use_temporal_attention": False,
        }
        unet_extra_config: ClassVar[dict] = {k: COMMON[k] for k in ("num_heads", "num_head_channels")}

        def clip_target(self, state_dict={}):  # noqa: B006
            return comfy.supported_models_base.ClipTarget(LabTokenizer, LabClip)

    return LabSD


def register() -> None:
    known = comfy.supported_models.models
    widths = [model.unet_config.get("context_dim") for model in known]
    known += [family(lab) for lab in (SMALL, LAB512) if lab.width not in widths]
