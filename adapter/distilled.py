"""A remark for models whose guidance is distilled into them: the papers' d is not defined there."""

from __future__ import annotations

HINT = (
    "Hint: `model` is guidance-distilled (it takes the guidance scale as an input, as Flux dev does). Sampled at cfg 1 "
    "no second prediction guides it, so the papers' magnitude d is not defined: the figures only say how far prompt "
    "and negative prompt are apart, and thresholds made for other models do not carry over."
)


def distilled(model) -> bool:
    """Whether the host built this model's network with a guidance embedding."""
    config = getattr(model.model, "model_config", None)
    return bool((getattr(config, "unet_config", None) or {}).get("guidance_embed", False))


def distilled_hint(model) -> list[str]:
    """HINT in a list, or an empty list."""
    return [HINT] if distilled(model) else []
