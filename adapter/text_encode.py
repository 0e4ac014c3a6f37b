"""Text into CONDITIONING, as the host's CLIP Text Encode does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import GuardError

if TYPE_CHECKING:
    from comfy.sd import CLIP


def encode_text(clip: CLIP | None, text: str) -> list:
    """CONDITIONING of `text`. Raises GuardError when the checkpoint has no text encoder."""
    if clip is None:
        raise GuardError("`clip` is empty: this checkpoint has no text encoder. Load one with a CLIP Loader.")
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))
