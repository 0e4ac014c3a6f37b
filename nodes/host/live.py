"""Text on the node while it works."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...mitigation.curve import EscapeCurve

try:
    from comfy_execution.utils import get_executing_context
    from server import PromptServer
except ImportError:  # an older or a headless host: the text is all that is lost
    PromptServer = None

PAUSE = 0.1  # seconds between two texts: a browser draws no faster


class LiveText:
    """Shows what a node is doing; silent where the host cannot."""

    def __init__(self, node: str | None = None) -> None:
        """`node`: the node to write on, by default the one that runs now."""
        context = get_executing_context() if PromptServer is not None and node is None else None
        self.node = node if context is None else context.node_id
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


def announce(node: str | None = None) -> Callable[[EscapeCurve], None]:
    """Writes what a deferred run did on a node: also on a patch, which is done before the sampler begins."""
    return lambda curve: LiveText(node).say(curve.headline, final=True)
