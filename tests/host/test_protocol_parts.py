"""The papers' protocol: prompts from files, training images, constants, scores as numbers."""

from pathlib import Path
from typing import Any

import comfy.samplers
import numpy as np
import pytest
import torch

from benchmarks import cases, methods, scorers, scores, training_images
from benchmarks.checkpoint import Plan
from benchmarks.papers.options import methods_for
from support.executor import Host

WEN = '{"caption": "\\"Lifted Up (1985)\\"", "index": 567947515, "url": "http://a.b/LiftedUp%20Lead.png?63"}\n'
HINTERSDORF = ';Caption;URL;type;Index\n0;"""Lifted; Up""";http://a.b/x.jpg;VM;12\n1;Foyer;http://a.b/y.jpg;TM;13\n'
WEBSTER = 'caption,url,overfit_type\n"A hippo, young",http://a.b/h.jpg,MV\nRetrieved,,RV\nRug,,TV\nOther,,N\n'
FILES = {  # name -> content, and what is read of it: text, kind, first index
    "wen.jsonl": (WEN, [('"Lifted Up (1985)"', "", "567947515")]),
    "hintersdorf.csv": (HINTERSDORF, [('"Lifted; Up"', "verbatim", "12"), ("Foyer", "template", "13")]),
    "webster.csv": (
        WEBSTER,
        [("A hippo, young", "verbatim", ""), ("Retrieved", "verbatim", ""), ("Rug", "template", ""), ("Other", "", "")],
    ),
    "webster.json": ('[{"prompt": "A rug", "overfit_type": "TV", "index": 4.0}]', [("A rug", "template", "4")]),
    "texts.json": ('["one", " two "]', [("one", "", ""), ("two", "", "")]),
    "columns.json": (
        '{"Caption": {"0": "one", "1": "two"}, "overfit_type": {"0": "MV", "1": "TV"}}',
        [("one", "verbatim", ""), ("two", "template", "")],
    ),
    "lines.json": ('{"text": "one"}\n{"text": "two"}', [("one", "", ""), ("two", "", "")]),
    "tabs.tsv": ("index\ttext\n3\tone, two\n", [("one, two", "", "3")]),
    "plain.txt": ("\ufeffone, a red disc\n\n# two \n", [("one, a red disc", "", ""), ("# two", "", "")]),
}


WRONG = [  # name, content, and a word of the complaint
    ("a.txt", "\n \n", "no prompts"),
    ("a.jsonl", '{"text": "one"}\n{"text": ', "line 2"),
    ("a.jsonl", '{"text": "one"}\n{"url": "x"}', "prompt 2"),
    ("a.json", '{"one": 1}', "neither"),
    ("a.csv", "words,url\none,x\n", "no column"),
]


def test_prompts_are_read_from_every_format_or_it_is_told_why_not(tmp_path: Path) -> None:
    for name, (content, wanted) in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        found = cases.read_cases(tmp_path / name)
        assert [(c.text, c.kind, (*c.indices, "")[0]) for c in found] == wanted, name
        assert [c.row for c in found] == list(range(len(wanted)))
    for name, content, word in WRONG:
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(cases.BenchmarkError, match=word):
            cases.read_cases(tmp_path / name)


def test_a_second_file_tells_verbatim_from_template() -> None:
    asked = [cases.Case(0, "One", indices=("12",)), cases.Case(1, " two  WORDS"), cases.Case(2, "three")]
    listed = [cases.Case(0, "another", indices=("12",)), cases.Case(1, "Two words")]
    assert [c.kind for c in cases.with_kinds(asked, listed)] == ["verbatim", "verbatim", "template"]
    typed = [cases.Case(0, "one", kind="template"), cases.Case(1, "two words", kind="verbatim")]
    assert [c.kind for c in cases.with_kinds(asked, typed)] == ["template", "verbatim", ""]
    groups = cases.groups_of([*cases.with_kinds(asked, typed), cases.Case(0, "x", cases.ORDINARY)])
    names = ["memorized", "memorized, verbatim", "memorized, template", "memorized, of unknown kind", "ordinary"]
    assert {name: len(part) for name, part in groups.items()} == dict(zip(names, (3, 1, 1, 1, 1), strict=True))
    assert list(cases.groups_of(asked)) == ["memorized"]


def work(name: str, caption: str = "") -> training_images.Work:
    return training_images.Work(Path(name), name, caption)


@pytest.mark.parametrize(
    ("asked", "names", "found", "way"),
    [
        ({"indices": ("00012",)}, ["13.png", "0012.jpg"], [1], "index"),
        ({"indices": ("12",)}, ["12/a.png", "12/b.png", "a.png"], [0, 1], "index"),
        ({"indices": ("12",)}, ["0012_first_image.jpg", "13_second.jpg"], [0], "index"),
        ({"files": ("gt/A.PNG",), "indices": ("12",)}, ["12.png", "a.png"], [1], "file name"),
        ({"addresses": ("LiftedUp Lead",)}, ["x.png", "liftedup lead.webp"], [1], "address"),
        ({"indices": ("567947515",)}, ["00000000.jpg", "00000001.jpg"], [1], "position"),
        ({"indices": ("567947515",)}, ["1/a.png", "2/a.png", "2/b.png"], [1, 2], "position"),
        ({}, ["0001_one.jpg", "0002_two.jpg"], [1], "position"),
        ({}, ["one.jpg", "two.jpg"], None, ""),
    ],
)
def test_training_images_find_their_prompt(asked: dict, names: list[str], found: list[int] | None, way: str) -> None:
    matches = training_images.match([cases.Case(1, "some words", **asked)], [work(n) for n in names])
    assert matches.works.get(1) == found
    assert [w for w, count in matches.ways.items() if count] == ([way] if way else [])
    if found:  # a caption goes before a place, and a prompt without an image never gets one of its number
        both = [cases.Case(0, "Some  words"), cases.Case(1, "other")]
        matches = training_images.match(both, [work("1.png"), work("2.png", "some words")])
        assert matches.works == {0: [1]} and "1 of 2" in matches.told(2)


def test_methods_are_chosen_and_changed_by_name(host: Host) -> None:
    every = methods_for("sd1.4")
    assert len({m.name for m in every}) == len(every)
    assert [m.family for m in methods.chosen(every, ["BATCH"])] == ["no mitigation", "Han batch-wise"]
    changed = methods.with_settings(
        every, {"*": {"noise": {"adjustments": 9}}, "Jain static": {"sampler": {"pre_escape_cfg": -1.0}}}
    )
    by_family = {m.family: m.inputs for m in changed}
    assert by_family["Han batch-wise"]["noise"]["adjustments"] == 9
    assert by_family["Jain static"]["sampler"]["pre_escape_cfg"] == -1.0
    assert "noise" not in by_family["Jain static"]
    with pytest.raises(cases.BenchmarkError, match="no method is called nothing"):
        methods.chosen(every, ["nothing"])
    for wrong, word in (
        ({"percent": 0.5}, "no input percent"),
        ({"rule": "nonsense"}, "rule is 'nonsense'; choose one of"),
        ({"start_percent": 2}, "between 0.0 and 1.0"),
        ({"start_percent": "late"}, "between 0.0 and 1.0"),
    ):
        with pytest.raises(cases.BenchmarkError, match=word):
            methods.checked("sampler", wrong)
    assert methods.checked("sampler", {"start_percent": 1}) == {"start_percent": 1}
    for wrong in ({"nothing": {}}, {"*": {"nothing": {}}}):
        with pytest.raises(cases.BenchmarkError, match=r"nothing|references"):
            methods.with_settings(every, wrong)


def test_a_table_shows_intervals_and_leaves_out_what_no_row_has(tmp_path: Path) -> None:
    rows = [
        {"method": "a", "copies": (0.25, 0.1, 0.4), "images": 8, "told": {"std": 1.0}},
        {"method": "b", "copies": None, "images": 4, "peer": True, "told": {}},
    ]
    wanted = [*scores.columns(scorers.Scorers()), scores.Column("std", "noise std", 3)]
    lines = scores.table(rows, wanted).splitlines()
    assert lines[0] == "| method | images | copies | noise std |"
    assert lines[2:] == ["| a | 8 | 25.0% (10%–40%) | 1.000 |", "| b \\* | 4 |  |  |"]
    assert scores.table([{"score": "d"}], [scores.Column("score", "score")]).endswith("| d |")
    page = tmp_path / "page.md"
    page.write_text("before <!-- table: x -->old<!-- end --> after", encoding="utf-8")
    scores.put(page, "x", r"new \1")
    assert page.read_text(encoding="utf-8") == "before <!-- table: x -->\nnew \\1\n<!-- end --> after"
    with pytest.raises(ValueError, match="no table y"):
        scores.put(page, "y", "")


class Pixels(torch.nn.Module):
    """Shaped as LPIPS: (B, 3, H, W) twice, in −1 … 1 -> (B, 1, 1, 1)."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


def test_diversity_intervals_and_the_schedule_are_the_papers(checkpoint: dict[str, Any]) -> None:
    """100 images of each of two prompts that differ are two draws, not 200."""
    grey = np.stack([np.full((4, 4, 3), v, np.uint8) for v in (0, 0, 255, 255, 255, 255, 255)])
    spread = scorers.LPIPSDiversity(Pixels(), torch.device("cpu")).spread(grey)
    assert spread == pytest.approx(2 * 10 / 21)  # 2 × 5 of 21 pairs are black and white
    assert scores.interval([np.zeros(100), np.ones(100)]) == (0.5, 0.0, 1.0)
    # Prompts that agree leave the noise of their 100 images: a standard error of 0.05, 95 % within 1.96 of them.
    assert scores.interval([np.array([0.0, 1.0])] * 50) == pytest.approx((0.5, 0.402, 0.598), abs=0.015)
    assert scores.interval([0.5] * 4) == (0.5, 0.5, 0.5) and scores.interval([]) is None
    sampling, plan = checkpoint["m"].get_model_object("model_sampling"), Plan()
    sigmas = comfy.samplers.calculate_sigmas(sampling, plan.scheduler, plan.steps)
    assert [round(float(sampling.timestep(s))) for s in sigmas[:-1]] == list(range(981, 0, -20)) and sigmas[-1] == 0
