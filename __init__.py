"""Memorization Guard: ComfyUI nodes against pictures that are copies of training images."""

from __future__ import annotations

import importlib
import logging

WEB_DIRECTORY = "./web"
MODULES = (
    "noise_optimizer",
    "basin_escape_detector",
    "deferred_cfg_ksampler",
    "references_from_folder",
    "references_from_images",
    "references_on_disk",
    "load_copy_detector",
    "copy_check",
    "deferred_cfg_guider",
    "deferred_cfg",
    "calibrate",
    "plot_curve",
)
log = logging.getLogger("memorization_guard")


def collect_nodes() -> list[type]:
    """Every node that this host can offer.

    A host symbol that moved costs the nodes that need it, with a message, and not the pack.
    """
    nodes: list[type] = []
    for name in MODULES:
        try:
            nodes += importlib.import_module(f".nodes.{name}", __name__).NODES
        except (ImportError, AttributeError) as error:
            log.error(
                "Memorization Guard: the nodes of nodes/%s.py are missing, because this ComfyUI differs from what "
                "they need (%s). Update ComfyUI and the pack; the other nodes work.", name, error
            )  # fmt: skip
    return nodes


async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension

    class MemorizationGuard(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return collect_nodes()

    return MemorizationGuard()
