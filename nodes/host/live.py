"""Text on the node while it works."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Protocol

try:
    from comfy_execution.utils import get_executing_context
    from server import PromptServer
except ImportError:  # an older or a headless host: the text is all that is lost
    PromptServer = None

log = logging.getLogger("memorization_guard")
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


def tell(text: str, node: str | None = None) -> None:
    """Leave a text on a node, by default the one that runs now."""
    LiveText(node).say(text, final=True)


class Account(Protocol):
    """What a run did: an EscapeCurve, a GuidanceTrace."""

    @property
    def headline(self) -> str: ...

    @property
    def hint(self) -> str: ...  # what is probably not meant, or nothing


def announce(node: str | None = None, hints: Iterable[str] = ()) -> Callable[[Account], None]:
    """Writes what a run did on a node: also on a patch, which is done before the sampler begins.

    Under it the hints, what is probably not meant; the log has them, too.
    """

    def write(account: Account) -> None:
        lines = [*hints, *([account.hint] if account.hint else [])]
        for line in lines:
            log.warning(line)
        tell("\n".join([account.headline, *lines]), node)

    return write
