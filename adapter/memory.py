"""Out of memory: done again with less, as long as there is less; then one sentence on what to lower.

Nothing here costs anything until memory runs out. A failed attempt is let go of before the next one begins:
its error would keep every tensor of every frame that it went through.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import comfy.model_management

from .errors import GuardError

log = logging.getLogger("memorization_guard")
T = TypeVar("T")


class OutOfMemoryError(GuardError, comfy.model_management.OOM_EXCEPTION):
    """A GuardError that is the host's own out of memory, too: it unloads all models and says so."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the host takes this error for out of memory; if so, what it holds is let go of."""
    known = getattr(comfy.model_management, "is_oom", None)  # newer hosts know other back ends' errors
    if not (known(error) if known else isinstance(error, comfy.model_management.OOM_EXCEPTION)):
        return False
    traceback.clear_frames(error.__traceback__)
    return True


def retry_with_less(first: Callable[[], T], smaller: Callable[[], T]) -> T:
    """`first()`; when it runs out of memory, `smaller()`."""
    try:
        return first()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    comfy.model_management.soft_empty_cache()
    return smaller()


@dataclass
class BatchParts:
    """How much of a batch fits at once; what a run has learnt stays for the rest of it."""

    at_once: int | None = None  # None: everything

    def run(self, body: Callable[[slice], T], count: int, least: int = 1) -> list[T]:
        """`body` on rows 0 … count − 1, all at once, or in parts halved whenever memory runs out.

        Raises what `body` raises for the `least` rows that can stand alone.
        """
        out: list[T] = []
        done = 0
        while done < count:
            rows = slice(done, min(done + max(self.at_once or count, least), count))
            size = rows.stop - done
            found: list[T] = (
                retry_with_less(partial(_listed, body, rows), list) if size > least else _listed(body, rows)
            )
            if found:
                out, done = out + found, rows.stop
            else:
                self.at_once = max(least, (size + 1) // 2)
                log.info("Out of memory with %d at once: going on with %d.", size, self.at_once)
        return out


def _listed(body: Callable[[slice], T], rows: slice) -> list[T]:
    return [body(rows)]


@contextmanager
def explain_out_of_memory(node: str, lower: str) -> Iterator[None]:
    """Out of memory inside the block is told as `lower` says: what can be made smaller, in whole sentences."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"{node}: out of memory. {lower} ({_short(error)})") from error


def _short(error: Exception) -> str:
    """What the back end said, without its advice for programmers."""
    return ". ".join(" ".join(str(error).split()).split(". ")[:2])[:160].rstrip(".")
