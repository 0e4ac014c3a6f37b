"""Text on the node while it works."""

from __future__ import annotations

import logging
import time

try:
    from comfy_execution.utils import get_executing_context
    from server import PromptServer
except ImportError:  # an older or a headless host: the text is all that is lost
    PromptServer = None

log = logging.getLogger("memorization_guard")
PAUSE = 0.1  # seconds between two texts: a browser draws no faster


class LiveText:
    """Shows what a node is doing; silent where the host cannot."""

    def __init__(self) -> None:
        context = get_executing_context() if PromptServer is not None else None
        self.node = None if context is None else context.node_id
        self.last = 0.0

    def say(self, text: str, final: bool = False) -> None:
        """Show `text` on the node that runs now. A text too soon after another is left out, unless it is final."""
        server = getattr(PromptServer, "instance", None)
        now = time.monotonic()
        if server is None or self.node is None or not hasattr(server, "send_progress_text"):
            return
        if final or now - self.last >= PAUSE:
            self.last = now
            server.send_progress_text(text, self.node)


def hint(text: str) -> None:
    """Tell what is probably not meant: on the node that runs now, and in the log. The run goes on."""
    log.warning(text)
    LiveText().say(text, final=True)
