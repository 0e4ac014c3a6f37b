"""The translations say all that English says, with the UI's names; file names of every language in images."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from PIL import ImageFont

from memorization_guard.drawing import copy_comparison, fonts
from tools.assets import locales as tool
from tools.assets.locales import ENGLISH, FILES, LOCALES, TRANSLATED, flat, normal, read

# Names that a translation must leave as they are: `quoted`, with_underscores, and file names.
LITERAL = re.compile(r"`[^`]+`|\b\w*[a-z0-9]_\w[\w.]*\w\b|\bSamplerCustomAdvanced\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
SCRIPT = {"ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ko": "[\uac00-\ud7af]", "zh": "[\u4e00-\u9fff]"}
FOREIGN = {"ja": "[\uac00-\ud7af]", "ko": "[\u3040-\u30ff\u4e00-\u9fff]", "zh": "[\u3040-\u30ff\uac00-\ud7af]"}
every_language = pytest.mark.parametrize("language", TRANSLATED)


def pairs(language: str) -> list[tuple[str, str, str]]:
    """(where, English, translation) of every text that both have."""
    found = []
    for name in FILES:
        english, translated = flat(read(ENGLISH, name)), flat(read(language, name))
        found += [(".".join((name, *p)), text, translated[p]) for p, text in english.items() if p in translated]
    return found


def test_every_language_has_what_english_has_in_the_same_order_as_the_tool_writes_it() -> None:
    for language, name in itertools.product((ENGLISH, *TRANSLATED), FILES):
        english, tree = read(ENGLISH, name), read(language, name)
        assert tool.differences(english, tree) == [] and list(flat(tree)) == list(flat(english)), (language, name)
        raw = (LOCALES / language / f"{name}.json").read_text(encoding="utf-8")
        assert raw == json.dumps(json.loads(raw), ensure_ascii=False, indent=2) + "\n"
    assert len([f for f in LOCALES.rglob("*") if f.is_file()]) == len((ENGLISH, *TRANSLATED)) * len(FILES)


@every_language
def test_a_text_is_translated_once_and_its_identifiers_and_numbers_survive(language: str) -> None:
    own, chosen = language.split("-")[0], dict[str, str]()
    for where, english, text in pairs(language):
        if len(english.split()) > 3:
            assert text != english and re.search(SCRIPT[own], text), where
        assert not re.search(FOREIGN[own], text), where
        for said in (english, text):  # vue-i18n reads {name}, @:key and a | b as instructions
            assert said == said.strip() != "" and not re.search(r"[{}@$|]", said), (
                f"{where}: say it without {{ }} @ $ |"
            )
        assert text == chosen.setdefault(english, text), f"{where}: another translation of {english!r}"
        if where.endswith(".name") and "." not in english:  # an identifier becomes a label
            continue
        lost = [literal for literal in LITERAL.findall(english) if literal not in text]
        numbers = [number for number in NUMBER.findall(english) if number not in NUMBER.findall(text)]
        assert lost + numbers == [], where


@every_language
def test_a_node_is_called_by_the_name_it_bears(language: str) -> None:
    english, translated = read(ENGLISH, "nodeDefs"), read(language, "nodeDefs")
    names = {node["display_name"]: translated[key]["display_name"] for key, node in english.items()}
    assert len(set(names.values())) == len(names)
    mentions = 0
    for where, text, other in pairs(language):
        for name in (n for n in names if n in text):
            mentions += 1
            assert names[name] in other, f"{where}: {name} is {names[name]}"
    assert mentions > len(names)


def test_english_settings_are_what_the_page_registers() -> None:
    """The frontend looks texts up by the setting's id, and categories by each part that it shows, but the last."""
    source = (LOCALES.parent / "web" / "warnings.mjs").read_text(encoding="utf-8")
    ids = dict(re.findall(r'const (\w+) = "(MemorizationGuard\.\w+)"', source))
    registered = re.findall(r'id: (\w+),\s*category: (\[.*?\]),\s*name: (".*?"),\s*tooltip: (".*?"),', source)
    assert len(registered) == source.count("defaultValue:") == 2
    settings, categories = {}, []
    for constant, category, name, tooltip in registered:
        settings[normal(ids[constant])] = {"name": json.loads(name), "tooltip": json.loads(tooltip)}
        categories += json.loads(category)[:-1]
    assert settings == read(ENGLISH, "settings")
    assert read(ENGLISH, "main")["settingsCategories"] == {part: part for part in categories}


def test_traditional_chinese_is_not_simplified() -> None:
    """Words that the two of them never share."""
    simple, traditional = (json.dumps([read(x, f) for f in FILES], ensure_ascii=False) for x in ("zh", "zh-TW"))
    for a, b in (("噪波", "雜訊"), ("图像", "影像"), ("采样器", "取樣器"), ("阈值", "臨界值"), ("参考", "參考")):
        assert a in simple and a not in traditional
        assert b in traditional and b not in simple


def test_a_translation_follows_its_text_and_falls_with_it() -> None:
    before: tool.Texts = {("a",): "one", ("b", "c"): "two", ("b", "d"): "three"}
    translated: tool.Texts = {("a",): "eins", ("b", "c"): "zwei", ("b", "d"): "drei"}
    now: tool.Texts = {("b", "d"): "three!", ("new",): "two", ("a",): "one"}
    assert list(tool.carried(before, translated, now).items()) == [(("new",), "zwei"), (("a",), "eins")]
    assert tool.carried(before, {}, now) == {}
    assert tool.differences(tool.nested(now), tool.nested(translated)) == ["missing new", "stale b.c"]


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
