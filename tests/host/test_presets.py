"""Presets set what the papers say, and do what the published equations do, through the real executor."""

import math

import comfy.samplers
import pytest
import torch
from torch import Tensor

from memorization_guard.mitigation import published_settings as published
from support.executor import Host, NodeError
from support.graphs import MEMORIZED, MODEL, ORDINARY, SEED, amg, custom, deferred, lab, node, optimizer, references
from support.lab_pack import exact
from support.outcomes import same_bits
from support.paths import PACK, ROOT

T_981 = 13.1204  # σ there


def test_the_values_are_the_papers() -> None:
    """[HAN] Appendix B; [JAIN] README and scripts; [AMG] txt2img.py and ddim.py of the released code."""
    sample, batch = published.NOISE[published.HAN_SD1_SAMPLE], published.NOISE[published.HAN_SD1_BATCH]
    assert (sample["target_magnitude"], sample["target_units"], sample["max_iterations"]) == (0.9, "absolute", 1000)
    assert (sample["learning_rate"], sample["weight_decay"], sample["constraint"]) == (0.01, 0.01, "free")
    assert (batch["adjustment_strength"], batch["sharpness_radius"], batch["adjustments"]) == (0.7, 50, 2)
    sample, batch = published.NOISE[published.HAN_SD2_SAMPLE], published.NOISE[published.HAN_SD2_BATCH]
    assert sample["target_magnitude"] in (5, 8, 10, 15, 20)
    assert (sample["learning_rate"], sample["weight_decay"]) == pytest.approx((0.00684, 0.146), rel=1e-2)
    assert (batch["adjustment_strength"], batch["sharpness_radius"]) == pytest.approx((0.048, 2.05), rel=1e-2)
    assert batch["adjustments"] == 4
    jain = published.SAMPLING[published.JAIN_DYNAMIC]
    assert (jain["pre_escape_cfg"], jain["rule"], jain["memorized_threshold"]) == (1.0, "local minimum", 0.0)
    scales = {name: settings["cfg"] for name, settings in published.SAMPLING.items()}
    assert {name.split()[0]: scale for name, scale in scales.items()} == {"Han": 7.0, "Jain": 7.5, "Chen": 7.5}
    assert all(settings["steps"] == 50 for settings in published.SAMPLING.values())
    chen = published.GUIDANCE[published.AMG_RELEASED]
    assert (chen["despecification"], chen["dissimilarity"], chen["deduplication"] * 0.3) == (13.0, 100.0, 1.0)


def test_help_lists_what_every_preset_sets() -> None:
    pages = {"NoiseOptimizer": published.NOISE, "DeferredCFGKSampler": published.SAMPLING}
    pages["AMGGuidance"] = published.GUIDANCE
    for page, table in pages.items():
        text = (ROOT / "web" / "docs" / f"MG_{page}.md").read_text(encoding="utf-8")
        for preset in table:
            (said,) = published.sentence(table, preset)
            assert f"- **{preset}**: {said.removeprefix(f'Preset {preset}: ')}" in text


@pytest.mark.parametrize(
    ("preset", "without"),
    [
        (published.HAN_SD1_SAMPLE, 0),
        (published.HAN_SD1_BATCH, 5),  # t 981 … 901, as the authors' code
        (published.HAN_SD2_SAMPLE, 0),
        (published.HAN_SD2_BATCH, 4),  # t 999 … 937.84: CFG at t ≤ 917.4490
        (published.JAIN_STATIC, 25),  # t 999 … 519
    ],
)
def test_guidance_begins_at_the_papers_step(host: Host, preset: str, without: int) -> None:
    out = host.run({"lab": lab(1), "s": deferred(preset=preset, steps=3, sampler_name="heun", cfg=1.0)})["s"]
    assert out[2] == without
    assert len(out[1].sigmas) == 51
    seen = host.views("s")[0]
    assert preset in " ".join(seen["notes"]) and "steps 50" in " ".join(seen["notes"])
    with pytest.raises(NodeError, match=r"`preset` (Han|Jain) 2025.* flow model.*Calibrate"):
        host.run({"lab": lab(1, "flow"), "o": (deferred if without else optimizer)(preset=preset)})


def test_jain_dynamic_waits_for_a_minimum_and_custom_changes_nothing(host: Host) -> None:
    nodes = {"s": deferred("off", preset=published.JAIN_DYNAMIC), "b": deferred(preset=published.CUSTOM)}
    out = host.run({"lab": lab(2), "a": deferred(), **nodes})
    for row, step in zip(out["s"][1].d, out["s"][1].transition.tolist(), strict=True):
        first = next((i for i in range(2, 50) if row[i] > row[i - 1] and row[i - 2] > row[i - 1]), 50)
        assert step == first
    assert same_bits(out["a"], out["b"])


def test_a_preset_starts_at_the_authors_t(host: Host) -> None:
    plan = {"method": "batch-wise", "sharpness_radius": 50.0, "adjustments": 2, "adjustment_strength": 0.7}
    sigmas = node("BasicScheduler", model=MODEL, scheduler="ddim_uniform", steps=50, denoise=1.0)
    nodes = {"a": optimizer(preset=published.HAN_SD1_BATCH), "s": sigmas, "b": optimizer(**plan, sigmas=["s", 0])}
    out = host.run({"lab": lab(2), **nodes})
    a, b = out["a"], out["b"]
    assert a[0].sigma == pytest.approx(T_981, rel=1e-4)
    assert torch.equal(a[0].noise, b[0].noise)


def test_sd_2_constants_are_those_of_the_authors_on_latents_14_61_times_as_large(host: Host, monkeypatch) -> None:
    target = 2.0  # for the exact model: 30 to 55 iterations
    table = host.module(PACK, "mitigation.published_settings").NOISE
    settings = {**table[published.HAN_SD2_SAMPLE], "target_magnitude": target, "max_iterations": 60}
    monkeypatch.setitem(table, published.HAN_SD2_SAMPLE, settings)
    found, report = host.run({"lab": lab(6, "v"), "o": optimizer(preset=published.HAN_SD2_SAMPLE)})["o"][:2]
    predict, scale = exact.network("v"), published.SD2_SCALE
    for i, start in enumerate(torch.randn((6, *exact.SHAPE), generator=torch.manual_seed(SEED))):
        latent = (scale * start).requires_grad_(True)
        authors = torch.optim.AdamW([latent], lr=0.1)
        for count in range(61):
            one, none = predict((latent / scale)[None], 999, "memorized", "null")
            loss = (one - none).norm()
            if loss.item() <= target or count == 60:
                break
            authors.zero_grad()
            loss.backward()
            authors.step()
        assert report.iterations[i] == count
        torch.testing.assert_close(found.noise[i], latent.detach() / scale, atol=5e-3, rtol=0)
    assert 0 < report.iterations.max() <= 60 and len(set(report.iterations.tolist())) > 1


class Transcription:
    """One image under the released code, from its published rules: [AMG] Eq. 11-17, with the authors' constants.

    Similarity is that of this pack's latent metric: SSCD is not at hand, and the rules are the same for any.
    """

    def __init__(self, prompt: str, stored: Tensor, duplicate: set[int], deduplicates: bool) -> None:
        self.prompt, self.duplicate, self.deduplicates = prompt, duplicate, deduplicates
        rows = stored.float()
        self.mean = rows.mean(0) * (len(rows) - 1) / len(rows)
        self.rows = torch.nn.functional.normalize(rows - self.mean, dim=1).half().double()
        self.predict, self.count, self.caption = exact.network(), 10, False
        self.acts = dict.fromkeys(("below", "above", "held", "dissimilar"), 0)

    def similarity(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        flat = x0.flatten()
        unit = torch.nn.functional.normalize(flat - flat.mean(), dim=0)
        cosines = self.rows @ torch.nn.functional.normalize(unit - self.mean, dim=0)
        near = cosines.argsort(descending=True)
        votes = sum(int(row) in self.duplicate for row in near)
        self.caption = self.caption or (votes > 1 or int(near[0]) in self.duplicate)
        return cosines.max(), near

    def step(self, x: Tensor, sigma: float, t: int) -> Tensor:
        """ε̂ (1, ...) float64 for a latent x = x_t/√ᾱ."""
        alpha = 1 / (1 + sigma**2)
        x_t = (x / (sigma**2 + 1) ** 0.5).double().requires_grad_(True)  # rounded to float32 as the host does
        asked = self.predict(x_t.detach().float(), t, self.prompt, "null", "memorized")
        cond, uncond, dup = (e.double().detach() for e in asked)
        limit, s0 = 0.3 + 0.1 * math.exp(-0.005 * t), 7.5

        def judged(eps: Tensor) -> tuple[float, Tensor]:
            similar, _ = self.similarity((x_t - math.sqrt(1 - alpha) * eps) / math.sqrt(alpha))
            return float(similar.detach()), torch.autograd.grad(similar, x_t)[0]

        eps = uncond + s0 * (cond - uncond)
        before, _ = judged(eps)
        if before <= 0:
            return eps
        s1, s2 = min(max(13 * before, 0.0), 6.5), 0.0
        triggered = self.deduplicates and self.caption and before > limit
        if triggered or self.count != 10:
            self.count = 9 if triggered else self.count - 1
            if self.count == 0:
                self.count = 10
            s2 = max(min(6.5 - s1, (6.5 - s1) / 0.3 * before), 0.0)
            self.acts["held"] += not triggered and s2 > 0
        eps = uncond + (s0 - s1) * (cond - uncond) + s2 * (uncond - dup)
        after, gradient = judged(eps)
        self.acts["below"] += before <= limit
        self.acts["above"] += before > limit
        if after > limit:
            self.acts["dissimilar"] += 1
            eps = eps + math.sqrt(1 - alpha) * 100 * gradient * (after - 0.3) * math.exp((1000 - t) / 170)
        return eps.detach()


def recorded(steps: list[tuple[Tensor, float, Tensor]]) -> comfy.samplers.KSAMPLER:
    """DDIM (eta 0), keeping every (x, σ, denoised prediction)."""

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for i, sigma in enumerate(sigmas[:-1]):
            denoised = model(x, sigma * x.new_ones([len(x)]), **(extra_args or {}))
            steps.append((x.clone(), float(sigma), denoised.clone()))
            x = denoised + (x - denoised) / sigma * sigmas[i + 1]
        return x

    return comfy.samplers.KSAMPLER(sample)


@pytest.mark.parametrize("captions", ["memorized\nmemorized\na\nb", ""], ids=["with captions", "without"])
@pytest.mark.parametrize(("prompt", "positive"), [("memorized", MEMORIZED), ("ordinary", ORDINARY)])
def test_amg_as_released_is_the_published_equations(host: Host, prompt: str, positive: list, captions: str) -> None:
    draw = torch.randn(3, *exact.SHAPE, generator=torch.manual_seed(3))
    # Not quite the memorized image: beside a reference itself a cosine's gradient is a difference of equal numbers.
    near = exact.x_mem() + 0.3 * draw[:1]
    works = torch.cat([near, near + 0.02, 0.4 * exact.x_mem() + draw[1:]])
    steps: list = []
    nodes = {
        "lab": lab(3),
        "refs": references(captions=captions),
        "g": amg(preset=published.AMG_RELEASED, clip=["clip", 0], despecification=0.0),
        "guider": node("CFGGuider", model=["g", 0], positive=positive, negative=[("lab"), 3], cfg=7.5),
        **custom(["guider", 0], scheduler="ddim_uniform"),
    }
    nodes["custom"]["inputs"]["sampler"] = ["sampler", 0]
    given = {"works": {"samples": works}, "clip": exact.TextEncoder(), "sampler": recorded(steps)}
    host.run(nodes, given)
    stored = host.run({"refs": references(captions=captions)}, given)["refs"][0].features
    assert len(steps) == 50
    table = exact.network().table
    done: dict[str, int] = {}
    worst = 0.0
    for b in range(3):
        rules = Transcription(prompt, stored, {0, 1}, bool(captions))
        for x, sigma, denoised in steps:
            t = int((table - sigma).abs().argmin())
            mine = (x[b : b + 1].double() - denoised[b : b + 1].double()) / sigma
            wanted = rules.step(x[b : b + 1], sigma, t)
            worst = max(worst, float((mine - wanted).norm() / wanted.norm()))
        done = {name: done.get(name, 0) + count for name, count in rules.acts.items()}
    print(f"\n{prompt}: largest relative difference {worst:.1e}; {done}")
    assert worst <= 1e-5
    assert done["below"] > 0
    assert prompt == "ordinary" or (done["above"] > 0 and done["dissimilar"] > 0)
    assert (done["held"] > 0) == (prompt == "memorized" and bool(captions))
