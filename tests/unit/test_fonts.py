"""File names of every language in drawn images: readable where the system has a font, told apart where it has none."""

import itertools

import numpy as np
import pytest
import torch
from PIL import ImageFont

from memorization_guard.drawing import copy_comparison, fonts

SCRIPTS = {
    "accents": ("café, Übung, łódź.png", ["DejaVuSans.ttf", "segoeui.ttf", "arial.ttf"]),
    "Cyrillic": ("Зимний лес.png", ["DejaVuSans.ttf", "segoeui.ttf", "arial.ttf"]),
    "Chinese": ("春天的画.png", ["NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc"]),
    "Japanese": ("はるの絵.png", ["NotoSansCJK-Regular.ttc", "YuGothM.ttc", "Arial Unicode.ttf"]),
    "Korean": ("학교.png", ["NotoSansCJK-Regular.ttc", "malgun.ttf", "AppleSDGothicNeo.ttc"]),
}
NAMES = [name for name, _ in SCRIPTS.values()]


def has(name: str) -> bool:
    try:
        return bool(ImageFont.truetype(name, 22))
    except OSError:
        return False


def drawn(names: list[str]) -> list[bytes]:
    images = torch.zeros(len(names), 8, 8, 3)
    made = copy_comparison.side_by_side(images, images, [0.5] * len(names), 0.5, names)
    return [np.asarray(image[-60:]).tobytes() for image in made]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_name_is_drawn_as_it_is_written_where_the_system_has_a_font(script: str) -> None:
    name, known = SCRIPTS[script]
    if not any(map(has, known)):
        pytest.skip(f"this machine has no font for {script}")
    text, font = fonts.Fonts(22).fitted(name, 700)
    assert text == name
    boxes = bytes(font.getmask(fonts.NO_CHARACTER))
    assert all(bytes(font.getmask(c)) != boxes for c in name if c != " ")


def test_names_that_no_font_can_draw_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ())
    assert fonts.Fonts(22).fitted("학교.png", 700)[0] == r"\ud559\uad50.png"
    ends = ["春" * 40 + f"{c}.png" for c in "ab\u6625\u590f"]
    for one, other in itertools.combinations(drawn([*NAMES, *ends]), 2):
        assert one != other


def test_both_ways_to_write_an_accent_are_one_name_and_english_needs_no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fonts.Fonts(22).fitted("cafe\u0301.png", 700)[0] == fonts.Fonts(22).fitted("caf\u00e9.png", 700)[0]
    assert drawn(["cafe\u0301.png"]) == drawn(["caf\u00e9.png"])
    monkeypatch.setattr(fonts.Fonts, "_system", lambda *_: pytest.fail("it looked for one"))
    assert fonts.Fonts(22).fitted("1: 0.97  COPY?  harbour.png", 700)[0] == "1: 0.97  COPY?  harbour.png"
