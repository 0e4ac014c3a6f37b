"""The papers' protocol: prompt files, training images, and a whole run on the lab checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import comfy.samplers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from host import prompts
from host.copy_detectors import random_sscd
from host.executor import Host
from lab.copies import COPY_RMSE, training_pairs
from lab.pack.arch import TOKENIZER
from papers import cases, methods, scorers, scores, session, training
from papers.__main__ import main
from papers.options import LAB

ROOT = Path(__file__).resolve().parents[2]
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
    "webster.json": (
        '[{"prompt": "A rug", "overfit_type": "TV", "index": 4.0}]',
        [("A rug", "template", "4")],
    ),
    "texts.json": ('["one", " two "]', [("one", "", ""), ("two", "", "")]),
    "inside.json": ('{"about": "x", "prompts": ["one"]}', [("one", "", "")]),
    "columns.json": (
        '{"Caption": {"0": "one", "1": "two"}, "overfit_type": {"0": "MV", "1": "TV"}}',
        [("one", "verbatim", ""), ("two", "template", "")],
    ),
    "by index.json": ('{"17": "one", "18": "two"}', [("one", "", "17"), ("two", "", "18")]),
    "lines.json": ('{"text": "one"}\n{"text": "two"}', [("one", "", ""), ("two", "", "")]),
    "tabs.tsv": ("index\ttext\n3\tone, two\n", [("one, two", "", "3")]),
    "plain.txt": ("\ufeffone, a red disc\n\n# two \n", [("one, a red disc", "", ""), ("# two", "", "")]),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_prompts_are_read_from_every_format(name: str, tmp_path: Path) -> None:
    content, wanted = FILES[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = cases.read_cases(tmp_path / name)
    assert [(c.text, c.kind, (*c.indices, "")[0]) for c in found] == wanted
    assert [c.row for c in found] == list(range(len(wanted)))


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.txt", "\n \n", "no prompts"),
        ("a.jsonl", '{"text": "one"}\n{"text": ', "line 2"),
        ("a.jsonl", '{"text": "one"}\n{"url": "x"}', "prompt 2"),
        ("a.json", '{"one": 1}', "neither"),
        ("a.csv", "words,url\none,x\n", "no column"),
    ],
)
def test_a_file_without_prompts_is_told(name: str, content: str, word: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(cases.PapersError, match=word):
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


def work(name: str, caption: str = "") -> training.Work:
    return training.Work(Path(name), name, caption)


@pytest.mark.parametrize(
    ("asked", "names", "found", "way"),
    [
        ({"indices": ("00012",)}, ["13.png", "0012.jpg"], [1], "index"),
        ({"indices": ("12",)}, ["12/a.png", "12/b.png", "a.png"], [0, 1], "index"),
        ({"indices": ("12",)}, ["0012_first_image.jpg", "13_second.jpg"], [0], "index"),
        ({"files": ("gt/A.PNG",), "indices": ("12",)}, ["12.png", "a.png"], [1], "file name"),
        ({"addresses": ("LiftedUp Lead",)}, ["x.png", "liftedup lead.webp"], [1], "address"),
        ({"indices": ("567947515",)}, ["00000000.jpg", "00000001.jpg"], [1], "place"),
        ({"indices": ("567947515",)}, ["1/a.png", "2/a.png", "2/b.png"], [1, 2], "place"),
        ({}, ["0001_one.jpg", "0002_two.jpg"], [1], "place"),
        ({}, ["one.jpg", "two.jpg"], None, ""),
    ],
)
def test_training_images_find_their_prompt(asked: dict, names: list[str], found: list[int] | None, way: str) -> None:
    matches = training.match([cases.Case(1, "some words", **asked)], [work(n) for n in names])
    assert matches.works.get(1) == found
    assert [w for w, count in matches.ways.items() if count] == ([way] if way else [])


def test_captions_match_and_a_place_never_fills_up() -> None:
    asked = [cases.Case(0, "Some  words"), cases.Case(1, "other")]
    matches = training.match(asked, [work("1.png"), work("2.png", "some words")])
    assert matches.works == {0: [1]}, "the second prompt has no picture, although there is one of its number"
    assert "1 of 2" in matches.told(2)


def test_brackets_of_a_caption_are_no_emphasis(checkpoint: dict[str, Any]) -> None:
    caption = r"a (red) disc \(1985)"
    weights = lambda text: {w for part in checkpoint["clip"].tokenize(text)["l"] for _, w in part}  # noqa: E731
    assert weights(session.unweighted(caption)) == {1.0}
    assert weights(caption) != {1.0}


def test_the_schedule_is_the_papers(checkpoint: dict[str, Any]) -> None:
    sampling = checkpoint["m"].get_model_object("model_sampling")
    plan = session.Plan()
    sigmas = comfy.samplers.calculate_sigmas(sampling, plan.scheduler, plan.steps)
    assert [round(float(sampling.timestep(s))) for s in sigmas[:-1]] == list(range(981, 0, -20))
    assert sigmas[-1] == 0


@pytest.mark.parametrize(("timestep", "first"), [(900.0, 5), (917.4, 4), (500.0, 25)])
def test_guidance_begins_where_the_papers_begin(host: Host, timestep: float, first: int) -> None:
    """Han et al.'s code: the steps 0 to 4 (t 981 … 901) without CFG."""
    changed = {"sampler_name": "ddim", "scheduler": "ddim_uniform", "start_percent": methods.percent(timestep)}
    out = host.run({"lab": prompts.lab(1), "k": prompts.deferred("static", **changed)})
    assert out["k"][2] == first


def test_methods_are_chosen_and_changed_by_name() -> None:
    every = methods.methods_for("sd1.4")
    assert len({m.name for m in every}) == len(every)
    assert [m.family for m in methods.chosen(every, ["BATCH"])] == ["no mitigation", "Han batch-wise"]
    changed = methods.with_settings(
        every, {"*": {"noise": {"adjustments": 9}}, "Jain static": {"sampler": {"pre_escape_cfg": -1.0}}}
    )
    by_family = {m.family: m.inputs for m in changed}
    assert by_family["Han batch-wise"]["noise"]["adjustments"] == 9
    assert by_family["Jain static"]["sampler"]["pre_escape_cfg"] == -1.0
    assert "noise" not in by_family["Jain static"]
    with pytest.raises(cases.PapersError, match="no method is called nothing"):
        methods.chosen(every, ["nothing"])
    for wrong in ({"nothing": {}}, {"*": {"nothing": {}}}):
        with pytest.raises(cases.PapersError, match=r"nothing|references"):
            methods.with_settings(every, wrong)


def test_intervals_are_over_prompts() -> None:
    """100 pictures of each of two prompts that differ are two draws, not 200."""
    estimate, low, high = scores.interval([np.zeros(100), np.ones(100)])
    assert (estimate, low, high) == (0.5, 0.0, 1.0)
    estimate, low, high = scores.interval([np.array([0.0, 1.0])] * 50)
    assert (estimate, low, high) == (0.5, 0.5, 0.5)
    assert scores.interval([]) is None


class Pixels(torch.nn.Module):
    """Shaped as LPIPS: (B, 3, H, W) twice, in −1 … 1 -> (B, 1, 1, 1)."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


def test_diversity_is_the_mean_over_pairs() -> None:
    grey = np.stack([np.full((4, 4, 3), v, np.uint8) for v in (0, 0, 255, 255, 255, 255, 255)])
    spread = scorers.LPIPSDiversity(Pixels(), torch.device("cpu")).spread(grey)
    assert spread == pytest.approx(2 * 10 / 21)  # 2 × 5 of 21 pairs are black and white


FEW = ["--lab", "--limit", "2", "--images", "2", "--steps", "8"]


def results(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    held = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {(r["group"], r["method"]): r for r in held["rows"]}


@pytest.fixture(scope="module")
def finished(host: Host, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of four methods, and its arguments."""
    out = tmp_path_factory.mktemp("papers")
    (out / "ordinary.txt").write_text("a blue ring", encoding="utf-8")
    (out / "settings.json").write_text('{"Han per-sample": {"noise": {"max_iterations": 2}}}')
    asked = [*FEW, "--batch-size", "2", "--out", str(out), "--ordinary", str(out / "ordinary.txt")]
    asked += ["--settings", str(out / "settings.json"), "--methods", "per-sample", "AMG", "static, CFG"]
    assert main(asked, host) == 0
    return out, asked


def test_a_whole_run_on_the_lab_checkpoint(finished: tuple[Path, list[str]]) -> None:
    out, _ = finished
    found = results(out)
    names = {"no mitigation", "Han per-sample, l_target 0.36", "Jain static, CFG from t 500"}
    names |= {"AMG latent, thresholds 0.5 … 0.6"}
    assert set(found) == {(g, n) for g in ("memorized", "ordinary") for n in names}
    plain = found["memorized", "no mitigation"]
    assert (plain["prompts"], plain["pictures"], plain["unchanged"]) == (2, 4, 1.0)
    assert plain["evaluations_per_picture"] == 16 and plain["evaluations"] == 1.0
    held = [np.array(Image.open(f)) for f in sorted((out / "pictures").glob("no-mitigation-*/memorized/*.png"))]
    own = [training_pairs()[i // 2][1] for i in range(4)]  # two pictures of each of the first two captions
    near = np.array([np.sqrt(np.mean((a / 255 - b / 255) ** 2)) for a, b in zip(held, own, strict=True)])
    assert plain["copies"][0] == np.mean(near < COPY_RMSE)
    assert plain["similarity_most"] == pytest.approx(1 - near.min(), abs=1e-6)
    static = found["memorized", "Jain static, CFG from t 500"]
    assert static["evaluations_per_picture"] == 12 and static["evaluations"] == 0.75
    assert static["similarity"][0] < plain["similarity"][0]
    assert found["memorized", "Han per-sample, l_target 0.36"]["told"]["iterations"] == 2
    assert found["memorized", "AMG latent, thresholds 0.5 … 0.6"]["unchanged"] < 1
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "stand-ins for the lab checkpoint" in report
    assert "not told apart" in report
    assert "AMG SSCD, all three was not run: no --sscd" in report


def test_a_second_run_makes_only_what_is_missing(finished: tuple[Path, list[str]], host: Host, capsys) -> None:
    out, asked = finished
    files = sorted((out / "pictures").rglob("*.png"))
    before = {f: f.stat().st_mtime_ns for f in files}
    gone = next(f for f in files if "static" in f.parts[-3])
    pixels, report = np.array(Image.open(gone)), results(out)
    gone.unlink()
    assert main([*asked, "--score-only"], host) == 0, "what is complete is scored"
    assert results(out)["memorized", "Jain static, CFG from t 500"]["prompts"] == 1
    assert not gone.is_file()
    assert main(asked, host) == 0
    assert np.array_equal(np.array(Image.open(gone)), pixels)
    again = {f for f in files if f.stat().st_mtime_ns != before[f]}
    assert again == {gone, *(f for f in files if f.parent == gone.parent and f.name[:5] == gone.name[:5])}
    scored = ("copies", "similarity", "aligned", "diversity", "evaluations_per_picture")
    assert all(results(out)[k][s] == r[s] for k, r in report.items() for s in scored)
    capsys.readouterr()
    assert main([*asked, "--cfg", "3"], host) == 2
    assert "made with other cfg" in capsys.readouterr().err


def test_noise_does_not_depend_on_the_batch(finished: tuple[Path, list[str]], host: Host, tmp_path: Path) -> None:
    out, _ = finished
    asked = [*FEW, "--limit", "1", "--out", str(tmp_path), "--ordinary", str(out / "ordinary.txt")]
    assert main([*asked, "--methods", "no mitigation"], host) == 0
    for file in sorted((tmp_path / "pictures").rglob("*.png")):
        one, two = (np.array(Image.open(f)).astype(int) for f in (file, out / file.relative_to(tmp_path)))
        assert np.abs(one - two).max() <= 2  # another batch size may change the last bit of a latent


def test_a_method_that_fails_leaves_the_others_alone(host: Host, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text('{"AMG latent": {"references": {"width": 64}}}')  # the pictures are 96 wide
    asked = [*FEW, "--limit", "1", "--images", "1", "--steps", "2", "--out", str(tmp_path), "--settings", str(settings)]
    assert main([*asked, "--methods", "AMG", "static, CFG"], host) == 1
    found = results(tmp_path)
    assert ("memorized", "Jain static, CFG from t 500") in found
    assert not any("AMG" in method for _, method in found)
    assert "**AMG latent, thresholds 0.5 … 0.6** failed" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"percent": 0.5}, "no input percent"),
        ({"rule": "nonsense"}, "rule is 'nonsense'; choose one of"),
        ({"start_percent": 2}, "goes from 0.0 to 1.0"),
        ({"start_percent": "late"}, "goes from 0.0 to 1.0"),
    ],
)
def test_an_input_that_the_node_would_not_take_is_told(changed: dict, word: str, host: Host) -> None:
    with pytest.raises(cases.PapersError, match=word):
        session.checked("sampler", changed)
    assert session.checked("sampler", {"start_percent": 1}) == {"start_percent": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SSCD and CLIP in their files' formats, small and random."""
    folder = tmp_path_factory.mktemp("weights")
    save_file({n: w.clone() for n, w in random_sscd().state_dict().items()}, str(folder / "sscd.safetensors"))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    words = transformers.CLIPTokenizer.from_pretrained(str(TOKENIZER))
    torch.manual_seed(5)
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": len(words), "max_position_embeddings": 16,
                     "eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id},
        vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=16,
    )  # fmt: skip
    transformers.CLIPModel(config).save_pretrained(folder / "clip")
    words.save_pretrained(folder / "clip")
    crop = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(folder / "clip")
    return folder


def test_the_real_scorers_on_random_weights(host: Host, weights: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)  # as if it were not installed
    types = tmp_path / "types.csv"
    rows = [f"{caption};{kind}" for (caption, _), kind in zip(training_pairs()[:2], ("VM", "TM"), strict=True)]
    types.write_text("\n".join(["Caption;type", *rows]), encoding="utf-8")
    plan = ["--size", "96", "--steps", "2", "--images", "1", "--constants", "lab"]
    files = ["--checkpoint", str(LAB / "lab.safetensors"), "--training-images", str(LAB / "training_images")]
    files += ["--prompts", str(types), "--sscd", str(weights / "sscd.safetensors"), "--clip", str(weights / "clip")]
    assert main([*plan, *files, "--out", str(tmp_path), "--methods", "SSCD, all"], host) == 0
    found = results(tmp_path)
    groups = ("memorized", "memorized, verbatim", "memorized, template")
    assert set(found) == {(g, m) for g in groups for m in ("no mitigation", "AMG SSCD, all three")}
    for row in found.values():
        assert -1 <= row["similarity"][0] <= row["similarity_most"] <= 1.0001
        assert -1 <= row["aligned"][0] <= 1
        assert row["diversity"] is None
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for said in (
        "SSCD (sscd.safetensors)",
        "CLIP of the folder clip",
        "lpips is not installed",
        "1 verbatim, 1 template",
    ):
        assert said in report


def test_sscd_knows_a_training_picture_again(host: Host, weights: Path) -> None:
    """Beside itself a picture has the similarity 1, and beside others that of their embeddings."""
    run = session.Session(host, LAB / "lab.safetensors", session.Plan(size=96))
    descriptor = run.copy_detector(weights / "sscd.safetensors")
    pictures = np.stack([picture for _, picture in training_pairs()[:3]])
    copies = scorers.SSCDCopies(run, descriptor, [torch.from_numpy(p).float() / 255 for p in pictures])
    assert copies.similarity(pictures, [0, 1, 2]) == pytest.approx(np.ones(3), abs=1e-5)
    other = copies.similarity(pictures[:1], [1, 2])
    assert other[0] < 0.99999
    assert other == pytest.approx(max(copies.similarity(pictures[:1], [i]) for i in (1, 2)))


def test_clip_scores_are_transformers_own(weights: Path) -> None:
    clip = scorers.CLIPAlignment(weights / "clip", torch.device("cpu"))
    pictures = np.stack([picture for _, picture in training_pairs()[:3]])
    text = "Harbour at Dawn, a red disc " * 9  # longer than the 16 tokens it takes
    seen = clip.pixels(list(pictures), return_tensors="pt")
    words = clip.tokens([text], truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        wanted = clip.model(**words, **seen).logits_per_image[:, 0] / clip.model.logit_scale.exp()
    assert clip.score(pictures, text) == pytest.approx(wanted.numpy(), abs=1e-5)
    assert clip.score(pictures, "a blue ring") != pytest.approx(wanted.numpy(), abs=1e-5)
    with pytest.raises(cases.PapersError, match=r"no config\.json"):
        scorers.CLIPAlignment(weights, torch.device("cpu"))


def test_the_command_starts_a_host_of_its_own(tmp_path: Path) -> None:
    """As a user runs it, in a process without any of the tests' preparations."""
    asked = [
        *FEW,
        "--limit",
        "1",
        "--images",
        "1",
        "--steps",
        "1",
        "--methods",
        "no mitigation",
        "--out",
        str(tmp_path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "papers", *asked], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("report.md")
    assert results(tmp_path)["memorized", "no mitigation"]["evaluations_per_picture"] == 2
