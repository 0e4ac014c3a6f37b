"""The papers' protocol: whole runs on the small lab, and the real scorers on random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from benchmarks import checkpoint, scorers
from benchmarks.cases import BenchmarkError
from benchmarks.papers.__main__ import main
from support.copy_detectors import random_sscd
from support.executor import Host
from support.lab_pack.arch import SMALL
from support.paths import ROOT, SMALL_CHECKPOINT
from support.small_lab import COPY_RMSE, TRAINING_IMAGES, training_pairs

FEW = ["--lab", "small", "--limit", "2", "--images", "2", "--steps", "5"]


def results(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    held = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {(r["group"], r["method"]): r for r in held["rows"]}


@pytest.fixture(scope="module")
def finished(host: Host, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
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
    names |= {"AMG latent, defaults", "AMG latent, where the prompt pulls"}
    assert set(found) == {(g, n) for g in ("memorized", "ordinary") for n in names}
    plain = found["memorized", "no mitigation"]
    assert (plain["prompts"], plain["images"], plain["unchanged"]) == (2, 4, 1.0)
    assert plain["evaluations_per_image"] == 10 and plain["evaluations"] == 1.0
    held = [np.array(Image.open(f)) for f in sorted((out / "images").glob("no-mitigation-*/memorized/*.png"))]
    own = [training_pairs()[i // 2][1] for i in range(4)]  # two images of each of the first two captions
    near = np.array([np.sqrt(np.mean((a / 255 - b / 255) ** 2)) for a, b in zip(held, own, strict=True)])
    assert plain["copies"][0] == np.mean(near < COPY_RMSE)
    assert plain["similarity_most"] == pytest.approx(1 - near.min(), abs=1e-6)
    static = found["memorized", "Jain static, CFG from t 500"]
    assert static["evaluations_per_image"] == 8 and static["evaluations"] == 0.8
    assert static["similarity"][0] < plain["similarity"][0]
    assert found["memorized", "Han per-sample, l_target 0.36"]["told"]["iterations"] == 2
    assert found["memorized", "AMG latent, defaults"]["unchanged"] < 1
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "stand-ins for a lab checkpoint" in report
    assert "not told apart" in report
    assert "AMG SSCD, as released was not run: no --sscd" in report


def test_a_second_run_makes_only_what_is_missing(finished: tuple, host: Host, capsys, tmp_path: Path) -> None:
    out, asked = finished
    files = sorted((out / "images").rglob("*.png"))
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
    scored = ("copies", "similarity", "evaluations_per_image")
    assert all(results(out)[k][s] == r[s] for k, r in report.items() for s in scored)
    capsys.readouterr()
    assert main([*asked, "--cfg", "3"], host) == 2
    assert "made with other cfg" in capsys.readouterr().err
    alone = [*FEW, "--limit", "1", "--out", str(tmp_path), "--ordinary", str(out / "ordinary.txt")]
    assert main([*alone, "--methods", "no mitigation"], host) == 0
    for file in sorted((tmp_path / "images").rglob("*.png")):  # noise does not depend on the batch
        one, two = (np.array(Image.open(f)).astype(int) for f in (file, out / file.relative_to(tmp_path)))
        assert np.abs(one - two).max() <= 2  # another batch size may change the last bit of a latent


def test_a_method_that_fails_leaves_the_others_alone(host: Host, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text('{"AMG latent": {"references": {"width": 64}}}')  # the images are 96 wide
    asked = [*FEW, "--limit", "1", "--images", "1", "--steps", "2", "--out", str(tmp_path), "--settings", str(settings)]
    assert main([*asked, "--methods", "AMG", "static, CFG"], host) == 1
    found = results(tmp_path)
    assert ("memorized", "Jain static, CFG from t 500") in found
    assert not any("AMG" in method for _, method in found)
    assert "**AMG latent, defaults** failed" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_file({n: w.clone() for n, w in random_sscd().state_dict().items()}, str(folder / "sscd.safetensors"))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    words = transformers.CLIPTokenizer.from_pretrained(str(SMALL.tokenizer))
    tokens = {"vocab_size": len(words), "max_position_embeddings": 16}
    tokens |= {"eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id}
    torch.manual_seed(5)
    config = transformers.CLIPConfig(
        text_config={**sizes, **tokens}, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
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
    files = ["--checkpoint", str(SMALL_CHECKPOINT), "--training-images", str(TRAINING_IMAGES)]
    files += ["--prompts", str(types), "--sscd", str(weights / "sscd.safetensors"), "--clip", str(weights / "clip")]
    assert main([*plan, *files, "--out", str(tmp_path), "--methods", "SSCD, as released"], host) == 0
    found = results(tmp_path)
    groups = ("memorized", "memorized, verbatim", "memorized, template")
    assert set(found) == {(g, m) for g in groups for m in ("no mitigation", "AMG SSCD, as released")}
    for row in found.values():
        assert -1 <= row["similarity"][0] <= row["similarity_most"] <= 1.0001
        assert -1 <= row["aligned"][0] <= 1
        assert row["diversity"] is None
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    names = ("SSCD (sscd.safetensors)", "CLIP of the folder clip")
    for said in (*names, "lpips is not installed", "1 verbatim, 1 template"):
        assert said in report


def test_sscd_recognises_a_training_image_and_no_other_file(host: Host, weights: Path, tmp_path: Path) -> None:
    """An image has similarity 1 to itself, and to others that of their embeddings."""
    run = checkpoint.Checkpoint(host, SMALL_CHECKPOINT, checkpoint.Plan(size=96))
    descriptor = run.copy_detector(weights / "sscd.safetensors")
    images = np.stack([image for _, image in training_pairs()[:3]])
    copies = scorers.SSCDCopies(run, descriptor, [torch.from_numpy(p).float() / 255 for p in images])
    assert copies.similarity(images, [0, 1, 2]) == pytest.approx(np.ones(3), abs=1e-5)
    other = copies.similarity(images[:1], [1, 2])
    assert other[0] < 0.99999
    assert other == pytest.approx(max(copies.similarity(images[:1], [i]) for i in (1, 2)))
    (tmp_path / SMALL_CHECKPOINT.name).write_bytes(b"another")
    with pytest.raises(BenchmarkError, match="another of that name"):
        checkpoint.Checkpoint(host, tmp_path / SMALL_CHECKPOINT.name, run.plan)


def test_clip_scores_are_transformers_own(weights: Path) -> None:
    clip = scorers.CLIPAlignment(weights / "clip", torch.device("cpu"))
    images = np.stack([image for _, image in training_pairs()[:3]])
    text = "Harbour at Dawn, a red disc " * 9  # longer than the 16 tokens it takes
    seen = clip.pixels(list(images), return_tensors="pt")
    words = clip.tokens([text], truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        wanted = clip.model(**words, **seen).logits_per_image[:, 0] / clip.model.logit_scale.exp()
    assert clip.score(images, text)["aligned"] == pytest.approx(wanted.numpy(), abs=1e-5)
    assert clip.score(images, "a blue ring")["aligned"] != pytest.approx(wanted.numpy(), abs=1e-5)
    with pytest.raises(BenchmarkError, match=r"no config\.json"):
        scorers.CLIPAlignment(weights, torch.device("cpu"))


def test_the_command_starts_a_host_of_its_own(tmp_path: Path) -> None:
    """As a user runs it, in a process without any of the tests' preparations."""
    few = [*FEW, "--limit", "1", "--images", "1", "--steps", "1", "--methods", "no mitigation", "--out", str(tmp_path)]
    run = {"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "capture_output": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-m", "benchmarks.papers", *few], text=True, **run)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("report.md")
    assert results(tmp_path)["memorized", "no mitigation"]["evaluations_per_image"] == 2
