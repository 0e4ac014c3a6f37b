"""Text on a node while and after it runs, and the host's preview pictures."""

from __future__ import annotations

from server import PromptServer


def tell(text: str, node_id: str | None) -> None:
    """Show a text on the node; without a server or an id nothing happens."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
