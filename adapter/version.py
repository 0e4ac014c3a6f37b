"""The oldest ComfyUI that the pack runs on. No host module is imported here: an old host may lack it."""

OLDEST_COMFYUI = "0.3.52"  # pyproject.toml tells the registry the same
