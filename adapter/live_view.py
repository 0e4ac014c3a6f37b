"""A node's view in the page, while the node works and afterwards."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

try:
    from comfy_execution.utils import get_executing_context
    from server import PromptServer
except ImportError:  # an older or a headless host: only the views are missing
    PromptServer = None

log = logging.getLogger("memorization_guard")
MIN_PAUSE = 0.1  # seconds between two views
PAUSE_PER_VIEW = 200  # or this many times as long as the last view took, so that views do not slow down a large batch
VIEW = "memorization_guard"  # the entry among a node's outputs, and the first part of the event's name


class LiveView:
    """One node's view, kept up to date in the page that queued the run.

    `ui` goes into the node's output, which the host keeps in its history of this run. It holds the view that was
    shown last in that run, also when a model patch shows it after its node was done.
    """

    def __init__(self, node: str | None = None) -> None:
        """`node`: by default the one that runs now."""
        context = executing_context()
        self.node = node or (context.node_id if context else None)
        self.run = context.prompt_id if context else ""
        self.shown: dict[str, Any] = {}
        self.next = 0.0  # on the monotonic clock

    @property
    def ui(self) -> dict[str, list[dict]]:
        return {VIEW: [self.shown]}

    def show(self, make: Callable[[], dict[str, Any]]) -> None:
        """Show the view that `make` returns, unless the last one was a moment ago."""
        began = time.monotonic()
        if began >= self.next:
            self._send(make())
            now = time.monotonic()
            self.next = now + max(MIN_PAUSE, PAUSE_PER_VIEW * (now - began))

    def finish(self, view: dict[str, Any]) -> dict[str, list[dict]]:
        """Show the last view of a run, log its warning and notes, and return `ui`."""
        if view["warning"]:
            log.warning(view["warning"])
        for line in view["notes"]:
            log.info(line)
        self._send(view)
        return self.ui

    def _send(self, view: dict[str, Any]) -> None:
        context = executing_context()
        run = context.prompt_id if context else ""
        if self.run != run:  # the node came out of the cache: the history of its first run must not change
            self.run, self.shown = run, {}
        self.shown.clear()
        self.shown.update(view, run=run)
        host = server()
        page = getattr(host, "client_id", None)
        if host is not None and page is not None and self.node is not None:
            host.send_sync(f"{VIEW}.view", {"node": self.node, "view": dict(self.shown)}, page)


def executing_context() -> Any:
    """The host's context of the node that runs now, or None."""
    return get_executing_context() if PromptServer is not None else None


def server() -> Any:
    """The host's server, or None."""
    return getattr(PromptServer, "instance", None)
