"""Wording that every text for a person shares."""

from __future__ import annotations

import unicodedata

ACTING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # Unicode's categories
JOINERS = "\u200c\u200d"


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


MOST_SHOWN = 200  # characters of a name or a caption


def clean(text: str) -> str:
    """A text from a file without characters that act instead of being read: controls, line ends, bidirectional marks.

    They could write escapes into a terminal, forge lines of a report, or turn a name around. Joiners stay: emoji and
    several scripts need them.
    """
    if text.isprintable():  # nearly always, and a file may hold millions of letters
        return text
    return "".join(" " if unicodedata.category(c) in ACTING and c not in JOINERS else c for c in text)


def shown(text: str) -> str:
    """The text as it is shown: clean, and cut after MOST_SHOWN characters."""
    text = clean(text[: 2 * MOST_SHOWN])
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"
