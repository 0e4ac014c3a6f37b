"""A font for a text in any script: Pillow's own knows English only, and file names are in every language."""

from __future__ import annotations

import contextlib
import functools
import unicodedata

from PIL import ImageFont

Font = ImageFont.FreeTypeFont
# Of Linux, Windows and macOS; Pillow looks into the system's folders. Those of one script come last.
SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "segoeui.ttf", "arial.ttf"),
    *("Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf"),
    *("msyh.ttc", "msjh.ttc", "YuGothM.ttc", "meiryo.ttc", "msgothic.ttc", "malgun.ttf", "simsun.ttc", "gulim.ttc"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "NanumGothic.ttf", "wqy-zenhei.ttc"),
)
NO_CHARACTER = "\U0010ffff"  # drawn as what a font has for characters that it lacks


class Fonts:
    """Pillow's font and the system's at one size, loaded when a text needs them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def fitted(self, text: str, width: float) -> tuple[str, Font]:
        """The text as it can be drawn on this many pixels, and the font that draws most of it.

        What no font draws is written as its number, and a long text loses its middle: two names must not look alike.
        """
        text = unicodedata.normalize("NFC", text)  # macOS writes é as two characters
        font = self._built_in
        for name in SYSTEM_FONTS:
            if not (missing := _missing(font, text)):
                break
            other = self._system(name)
            if other is not None and len(_missing(other, text)) < len(missing):
                font = other
        lacks = _missing(font, text)
        drawn = "".join(c.encode("ascii", "backslashreplace").decode() if c in lacks else c for c in text)
        kept = len(drawn)
        shown = drawn
        while font.getlength(shown) > width and kept > 2:
            kept -= 1
            shown = f"{drawn[: kept - kept // 2]}...{drawn[-(kept // 2) :]}"
        return shown, font

    @functools.cached_property
    def _built_in(self) -> Font:
        return ImageFont.load_default(self.size)  # type: ignore[return-value]

    @functools.cached_property
    def _loaded(self) -> dict[str, Font | None]:
        return {}

    def _system(self, name: str) -> Font | None:
        if name not in self._loaded:
            self._loaded[name] = None
            with contextlib.suppress(OSError):  # this system has none by that name
                self._loaded[name] = ImageFont.truetype(name, self.size)
        return self._loaded[name]


def _missing(font: Font, text: str) -> set[str]:
    """The characters of a text that a font has no drawing for."""
    nothing = bytes(font.getmask(NO_CHARACTER))
    return {c for c in set(text) if not c.isspace() and (not c.isprintable() or bytes(font.getmask(c)) == nothing)}
