"""What a node shows while it works and afterwards: a view in the page."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

try:
    from comfy_execution.utils import get_executing_context
    from server import PromptServer
except ImportError:  # an older or a headless host: the display is all that is lost
    PromptServer = None

log = logging.getLogger("memorization_guard")
PAUSE = 0.1  # seconds between two views: a browser draws no faster
RARE = 200  # and so many times what a view takes, so that a large batch is not held up by being watched
VIEW = "memorization_guard"  # the entry among a node's outputs, and the event's first part


class LiveView:
    """One node's view, kept up to date in the page that queued the run.

    `ui` goes into the node's output, which the host keeps in its history of this run; it holds
    whatever was shown last in that run, even what a patch saw after its node was done.
    """

    def __init__(self, node: str | None = None) -> None:
        """`node`: by default the one that runs now."""
        context = get_executing_context() if PromptServer is not None else None
        self.node = node or (context.node_id if context is not None else None)
        self.run = "" if context is None else context.prompt_id
        self.shown: dict[str, Any] = {}
        self.next = 0.0  # on the monotonic clock

    @property
    def ui(self) -> dict[str, list[dict]]:
        return {VIEW: [self.shown]}

    def show(self, make: Callable[[], dict[str, Any]]) -> None:
        """Show the view that `make` makes, unless the last one was a moment ago."""
        began = time.monotonic()
        if began >= self.next:
            self._send(make())
            now = time.monotonic()
            self.next = now + max(PAUSE, RARE * (now - began))

    def finish(self, view: dict[str, Any]) -> None:
        """Show the last view of a run; the log has its warning and its notes, too."""
        if view["warning"]:
            log.warning(view["warning"])
        for line in view["notes"]:
            log.info(line)
        self._send(view)

    def _send(self, view: dict[str, Any]) -> None:
        context = get_executing_context() if PromptServer is not None else None
        run = "" if context is None else context.prompt_id
        if self.run != run:  # a patch that comes out of the cache: the history of its first run stays true
            self.run, self.shown = run, {}
        self.shown.clear()
        self.shown.update(view, run=run)
        server = getattr(PromptServer, "instance", None)
        page = getattr(server, "client_id", None)
        if server is not None and page is not None and self.node is not None:
            server.send_sync(f"{VIEW}.view", {"node": self.node, "view": dict(self.shown)}, page)
