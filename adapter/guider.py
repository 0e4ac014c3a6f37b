"""The host's own guider."""

from __future__ import annotations

import comfy.samplers


def cfg_guider(model, positive, negative, cfg: float) -> comfy.samplers.CFGGuider:
    """What the host's CFGGuider node makes of the same inputs."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider
