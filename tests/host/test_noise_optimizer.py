"""Noise Optimizer through the real executor, under inference mode, on the exact model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from support.executor import Host
from support.graphs import MEMORIZED, MODEL, NULL, ORDINARY, SEED, custom, deferred, lab, node, optimizer
from support.lab_pack import exact
from support.outcomes import copies, same_bits

T = 999
EPS = 1e-8  # of AdamW: PyTorch's default, which the paper uses (Appendix B)


def independent_prediction() -> Callable[[Tensor], Tensor]:
    predict = exact.network()

    def difference(x: Tensor) -> Tensor:
        one, none = predict(x, T, "memorized", "null")
        return one - none

    return difference


def drawn(batch: int) -> Tensor:
    return torch.randn((batch, *exact.SHAPE), generator=torch.manual_seed(SEED))


@pytest.mark.parametrize(("relative", "at_most", "within"), [(0.007, 200, 1e-3), (0.0001, 60, 2e-3)])
def test_per_sample_equals_the_papers_pseudocode_one_by_one(host: Host, relative, at_most, within) -> None:
    changed = {"target_magnitude": relative, "max_iterations": at_most, "constraint": "free"}
    out = host.run({"lab": lab(6), "opt": optimizer(**changed)})["opt"]
    noise, report = out[0].noise, out[1]
    predict, target = independent_prediction(), relative * 16
    for i, start in enumerate(drawn(6)):
        x, m, v, count = start.clone(), 0.0, 0.0, 0
        best = (torch.inf, x, 0)
        while True:
            x.requires_grad_(True)
            loss = predict(x[None]).norm()
            best = min(best, (loss.item(), x.detach(), count), key=lambda b: b[0])
            if loss.item() <= target or count == at_most:
                break
            (g,) = torch.autograd.grad(loss, x)
            x, count = x.detach() * (1 - 0.01 * 0.01), count + 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            x = x - 0.01 * (m / (1 - 0.9**count)) / ((v / (1 - 0.999**count)).sqrt() + EPS)
        print(f"{best[2]} iterations: {(noise[i] - best[1]).abs().max():.1e} apart")
        torch.testing.assert_close(noise[i], best[1], atol=within, rtol=0)
        assert report.iterations[i] == best[2]
    assert report.reached.all() == (at_most == 200)
    assert len(set(report.iterations.tolist())) > 1 or at_most == 60, "the samples finish at different times"
    assert torch.equal(report.evaluations, 2 * (report.iterations + 2)), "one check; none is evaluated after it is done"


def test_batchwise_equals_equation_10(host: Host) -> None:
    out = host.run({"lab": lab(6), "opt": optimizer("batch-wise", sharpness_radius=5.0, adjustments=4)})["opt"]
    predict, x = independent_prediction(), drawn(6)
    for _ in range(4):
        e0 = predict(x)
        delta = 5.0 * e0 / e0.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        x = x - 0.7 * (predict(x + delta) - e0)
    torch.testing.assert_close(out[0].noise, x, atol=1e-4, rtol=0)
    print(f"{(out[0].noise - x).abs().max():.1e} apart")
    assert out[1].evaluations.tolist() == [16] * 6


def test_search_is_plain_gaussian_noise_of_some_seed_and_ends_where_the_target_is_reached(host: Host) -> None:
    """The first candidate that reaches it stays, and no further one is tried for that sample."""
    pool = torch.stack([torch.randn((5, *exact.SHAPE), generator=torch.manual_seed(SEED + k)) for k in range(6)])
    d = independent_prediction()(pool.flatten(0, 1)).flatten(1).norm(dim=1).view(6, 5)
    noise, tried, _ = host.run({"lab": lab(5), "o": optimizer("search", candidates=6, target_magnitude=0.0)})["o"]
    assert torch.equal(noise.noise, pool[d.argmin(0), torch.arange(5)])
    assert (tried.after <= tried.before).all() and tried.evaluations.tolist() == [12] * 5
    target = float(tried.relative(tried.history[1]).median())
    noise, report, _ = host.run({"lab": lab(5), "o": optimizer("search", candidates=6, target_magnitude=target)})["o"]
    first = [int(k) for k in report.iterations]
    assert all(torch.equal(noise.noise[i], pool[k, i]) for i, k in enumerate(first))
    ends = zip(first, report.reached, strict=True)
    assert report.evaluations.tolist() == [2 * (k + 1) if done else 12 for k, done in ends]
    assert report.reached.sum() >= 3


@pytest.mark.parametrize("method", ["per-sample", "search"])
def test_a_noise_below_the_threshold_of_memorized_prompts_stays(host: Host, method: str) -> None:
    """An ordinary prompt shows 0.0085, which is above this target and below the threshold."""
    change = {"target_magnitude": 0.006, "memorized_threshold": 0.012, "candidates": 4}
    nodes = {"a": optimizer(method, positive=ORDINARY, **change), "b": optimizer(method, **change)}
    out = host.run({"lab": lab(3), **nodes, "plain": optimizer(method, **{**change, "memorized_threshold": 0.0})})
    assert torch.equal(out["a"][0].noise, drawn(3)) and out["a"][1].reached.all()
    assert out["a"][1].evaluations.tolist() == [2] * 3
    assert "3 not memorized, left unchanged" in out["a"][2]
    assert torch.equal(out["b"][0].noise, out["plain"][0].noise), "a memorized prompt is moved as before"
    assert not torch.equal(out["b"][0].noise, drawn(3))


def test_batchwise_noise_and_a_deferred_start_stop_most_copying_in_the_hosts_own_sampler_too(host: Host) -> None:
    """lab.md: ρ = 5, M = 6, CFG from 20 %."""
    noise = {"opt": optimizer("batch-wise", sharpness_radius=5.0, adjustments=6)}
    noise["guider"] = node("CFGGuider", model=MODEL, positive=MEMORIZED, negative=NULL, cfg=7.0)
    hosts = {**custom(["guider", 0], noise=["opt", 0]), "ours": deferred("off", noise=["opt", 0])}
    runs = {
        "k": deferred("static", start_percent=0.2, noise=["opt", 0]),
        "plain": deferred("static", start_percent=0.2),
    }
    out = host.run({"lab": lab(48), **noise, **hosts, **runs})
    assert copies(out["k"]) <= 0.10
    assert copies(out["k"]) <= copies(out["plain"]) - 0.4
    assert same_bits(out["custom"], out["ours"])


@pytest.mark.parametrize(("kind", "unit"), [("eps", 1.0), ("v", (14.6146**2 + 1) ** 0.5), ("flow", 14.6146 / 0.936)])
def test_an_ordinary_prompt_below_target_keeps_its_noise(host: Host, kind: str, unit: float) -> None:
    """One relative target for every kind of model: the same pull on the image is `unit` times as large a d."""
    out = host.run({"lab": lab(3, kind), "opt": optimizer(positive=ORDINARY, target_magnitude=0.01)})["opt"]
    assert torch.equal(out[0].noise, drawn(3))
    torch.testing.assert_close(out[1].before / 16, torch.full((3,), 0.0085 * unit), rtol=0.03, atol=0)
    torch.testing.assert_close(out[1].relative(out[1].before), torch.full((3,), 0.0085), rtol=0.03, atol=0)
