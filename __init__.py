"""Memorization Guard: ComfyUI nodes that lower the risk of generating a copy of a training image."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path

WEB_DIRECTORY = "./web"
MODULES = (
    "guard",
    "noise_optimizer",
    "basin_escape_detector",
    "deferred_cfg_ksampler",
    "deferred_cfg_guider",
    "deferred_cfg",
    "prompt_check",
    "prompt_free_check",
    "prompt_reanchor",
    "calibrate",
    "plot_curve",
    "amg_guidance",
    "attention_attenuation",
    "references_from_folder",
    "references_from_images",
    "references_on_disk",
    "load_copy_detector",
    "copy_check",
    "lora_audit",
)
log = logging.getLogger("memorization_guard")


def warn_of_an_old_host() -> None:
    """A ComfyUI without comfy_entrypoint only complains that NODE_CLASS_MAPPINGS is missing: say what to do."""
    host = importlib.util.find_spec("comfy") is not None
    if host and (importlib.util.find_spec("comfy_api") is None or importlib.util.find_spec("comfy_api.latest") is None):
        from .adapter.version import OLDEST_COMFYUI

        log.error("Memorization Guard: this ComfyUI is too old. Update ComfyUI to %s or newer.", OLDEST_COMFYUI)


def collect_nodes() -> list[type]:
    """Every node that this host can offer.

    If ComfyUI moves a symbol, only the nodes that need it are missing. The traceback goes into the log,
    because the fault may also be ours.
    """
    nodes: list[type] = []
    for name in MODULES:
        try:
            nodes += importlib.import_module(f".nodes.{name}", __name__).NODES
        except (ImportError, AttributeError) as error:
            log.exception(
                "Memorization Guard: the nodes of nodes/%s.py are missing, because this ComfyUI differs from what "
                "they need (%s). Update ComfyUI and the pack; the other nodes work.",
                name,
                error,
            )
    return nodes


def serve_pages() -> None:
    """Serve help, views and templates also when the pack's folder has a name that the host cannot serve."""
    try:
        importlib.import_module(".adapter.routes", __name__).serve(Path(__file__).parent)
    except (ImportError, AttributeError) as error:
        log.exception("Memorization Guard: if its help is missing, name its folder memorization-guard (%s).", error)


async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension

    serve_pages()

    class MemorizationGuard(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return collect_nodes()

    return MemorizationGuard()


warn_of_an_old_host()
