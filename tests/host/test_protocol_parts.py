"""The papers' protocol: prompts from files, training images, constants, scores as numbers."""

from pathlib import Path
from typing import Any

import comfy.samplers
import numpy as np
import pytest
import torch

from benchmarks import cases, copy_recall, exact, measured, methods, sampling, scorers, scores, training_images
from benchmarks.checkpoint import Batch, Facts, Plan
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
    longer = [methods.NONE, methods.Method("A", "b"), methods.Method("A", "b, with c"), methods.Method("A", "d")]
    for asked, names in (("a, b", ["A, b"]), ("B, with", ["A, b, with c"]), ("a,", ["A, b", "A, b, with c", "A, d"])):
        assert [m.name for m in methods.chosen(longer, [asked])][1:] == names
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


def test_recall_counts_the_copies_above_the_threshold_that_nine_in_ten_deserve() -> None:
    copies, others = np.linspace(0.5, 1.0, 20), np.linspace(0.0, 0.6, 20)
    assert copy_recall.recall(copies, others) == 0.9  # 18 copies and 2 others lie above the third lowest copy
    assert copy_recall.recall(copies, copies) == 0.0 and copy_recall.recall(copies, others - 1) == 1.0
    images = torch.rand(2, 3, copy_recall.SIDE, copy_recall.SIDE, generator=torch.Generator().manual_seed(0))
    for name, edit in copy_recall.EDITS.items():
        made = edit(images)
        assert made.shape == images.shape and made.min() >= 0 and made.max() <= 1, name
        assert torch.equal(made, images) == (name == "as it is"), name


def test_the_exact_models_table_judges_the_default_on_both_halves(host: Host) -> None:
    named = dict(exact.methods())
    assert exact.measure(host, "eps", named["no mitigation"], 4) == {
        "eps chosen": 1.0,
        "eps held_out": 1.0,
        "eps late": None,
    }
    default = exact.measure(host, "flow", named["dynamic, drop 0.5"], 4)
    assert default["flow chosen"] == default["flow held_out"] == 0 and 0 < default["flow late"] < 0.4
    assert exact.measure(host, "eps", named["per-sample, to 0.01"], 2)["eps chosen"] == 0


class Brightness:
    """Every kind of scorer at once."""

    def similarity(self, images: np.ndarray, works: list[int]) -> np.ndarray:
        return images.mean((1, 2, 3)) / 255

    def score(self, images: np.ndarray, text: str) -> dict[str, np.ndarray]:
        return {"aligned": images.mean((1, 2, 3)) / 255 if text == "a" else np.full(len(images), np.nan)}

    def spread(self, images: np.ndarray) -> float:
        return float(np.ptp(images))


def test_a_record_stands_for_images_on_another_machine(tmp_path: Path) -> None:
    """Nothing of it is sampled again, unless it depends on something else, and the numbers are the same."""
    case, wanted, one = cases.Case(0, "a"), [1, 2], Brightness()
    by = scorers.Scorers(one, one, one)
    batch = Batch((case, case), (1, 2), 7, 0, 2)

    def images(folder: str, steps: int, text: str = "a") -> tuple[sampling.Images, cases.Case]:
        made = sampling.Images(tmp_path / folder, lambda *_: range(1, 3), measured.Record(tmp_path / "record.jsonl"))
        asked = cases.Case(0, text)
        made.claim(methods.NONE, {"steps": steps}, [asked])
        return made, asked

    here, _ = images("here", 30)
    assert here.missing([methods.NONE], [batch]) == [(methods.NONE, batch)]
    for i in wanted:
        pixels = np.full((4, 4, 3), 51 * i, np.uint8)
        here.write(methods.NONE, case, i, pixels, Facts(60.0, 1 / 3, None, {"d": 1.0}))
    found = here.measured(methods.NONE, case, wanted, by, [0])
    assert [(m.copies, m.second, m.aligned, m.facts.seconds) for m in found] == [
        (0.2, None, {"aligned": 0.2}, 0.3333333),
        (0.4, None, {"aligned": 0.4}, 0.3333333),
    ]
    assert here.spread(methods.NONE, case, wanted, by) == 51 and found[0].pixels != found[1].pixels
    here.record.save()

    elsewhere, _ = images("elsewhere", 30)
    assert elsewhere.missing([methods.NONE], [batch]) == []
    assert elsewhere.measured(methods.NONE, case, wanted, by, [0]) == found
    assert elsewhere.spread(methods.NONE, case, wanted, by) == 51
    for steps, text in ((31, "a"), (30, "b")):
        other, asked = images(f"{steps} {text}", steps, text)
        assert other.missing([methods.NONE], [batch._replace(cases=(asked, asked))])
        assert other.measured(methods.NONE, asked, wanted, by, [0]) == []
    elsewhere.record.hide(methods.NONE, case, 1)
    assert len(elsewhere.measured(methods.NONE, case, wanted, by, [0])) == 1
    elsewhere.record.save()
    assert images("elsewhere", 30)[0].measured(methods.NONE, case, wanted, by, [0]) == found, "a stop loses nothing"
