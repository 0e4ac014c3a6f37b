"""A caption is tokenised as it was trained, by every kind of the host's tokenizers."""

import random
from pathlib import Path

import comfy.sd
import pytest
from comfy.sd1_clip import SD1Tokenizer
from comfy.text_encoders.qwen_image import QwenImageTokenizer
from comfy.text_encoders.sd3_clip import SD3Tokenizer

from memorization_guard.adapter.conditioning import caption_tokens

PIECES = ["(", ")", "((", "\\", ":", "1.3", "0", "miku", " ", "\n", ", ", "embedding:name", " embedding:name", "\0\1"]


@pytest.mark.parametrize("kind", [SD1Tokenizer, SD3Tokenizer, QwenImageTokenizer])
def test_all_of_a_caption_is_text(kind: type, tmp_path: Path) -> None:
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = kind(embedding_directory=str(tmp_path)), {}
    held = [part for part in vars(clip.tokenizer).values() if hasattr(part, "tokenizer")]
    rng, template = random.Random(0), getattr(clip.tokenizer, "llama_template", "{}")
    for text in ["embedding:name", *("".join(rng.choices(PIECES, k=9)) for _ in range(99))]:
        trained = [part.tokenizer(template.format(text.replace("\0", "")))["input_ids"] for part in held]
        for own, (found,) in zip(trained, caption_tokens(clip, text).values(), strict=True):
            assert [token for token, _ in found][: len(own)] == own and {weight for _, weight in found} == {1.0}, text
