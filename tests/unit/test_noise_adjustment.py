"""The two adjustments of Han et al. against plain sequential implementations of the paper's text."""

import pytest
import torch

from memorization_guard.mitigation.noise.batch_wise import adjust_batchwise
from memorization_guard.mitigation.noise.norm_constraint import CONSTRAINTS, chi_gradient
from memorization_guard.mitigation.noise.per_sample import ADAMW_EPS, adjust_per_sample
from memorization_guard.mitigation.noise.seed_search import search_noise

SHAPE = (3, 5, 5)


@pytest.fixture
def predict():
    """A smooth nonlinear ε̃ with rows that do not touch each other."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(75, 75, generator=g) / 20
    b = torch.randn(75, generator=g) / 3

    def call(x: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        return torch.tanh(x.flatten(1) @ a + b).reshape(x.shape)

    return call


@pytest.fixture
def noise():
    return torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(1))


def paper_per_sample(x, predict, target, lr, decay, iterations):
    """Algorithm 2 for one sample, as written: check, then an AdamW update spelled out."""
    x, m, v = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
    for i in range(iterations):
        x.requires_grad_(True)
        loss = predict(x[None]).norm()
        if loss.item() <= target:
            return x.detach(), i
        (g,) = torch.autograd.grad(loss, x)
        x = x.detach()
        x = x - lr * decay * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - lr * (m / (1 - 0.9 ** (i + 1))) / ((v / (1 - 0.999 ** (i + 1))).sqrt() + ADAMW_EPS)
    return x, iterations


def test_per_sample_equals_the_pseudocode_run_one_by_one(noise, predict):
    d0 = predict(noise).flatten(1).norm(dim=1)
    target = float(d0.median()) * 0.8
    found, report = adjust_per_sample(noise, predict, target=target, learning_rate=0.02, max_iterations=400)
    for i in range(len(noise)):
        expected, count = paper_per_sample(noise[i], predict, target, 0.02, 0.01, 400)
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)
        assert report.iterations[i] == count
    assert report.reached.all()
    assert len(set(report.iterations.tolist())) > 1, "the samples finish at different times"
    assert torch.equal(report.evaluations, 2 * (report.iterations + 2)), "one check; none is evaluated after it is done"


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_batch_gives_each_sample_what_it_gets_alone(noise, predict, constraint):
    how = {"target": 1.0, "learning_rate": 0.02, "max_iterations": 60, "constraint": constraint}
    together, report = adjust_per_sample(noise, predict, **how)
    for i in range(len(noise)):
        alone, one = adjust_per_sample(noise[i : i + 1], predict, **how)
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=0)
        assert one.evaluations[0] == report.evaluations[i]


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_in_parts_is_the_batch_at_once(noise, predict, size):
    """BatchParts that change from one iteration to the next, as they do when memory runs out on the way."""
    sizes = []

    def in_parts(body, count):
        sizes.append(count if len(sizes) < 3 else size)
        return [body(slice(i, min(i + sizes[-1], count))) for i in range(0, count, sizes[-1])]

    how = {"target": 1.0, "learning_rate": 0.02, "max_iterations": 60}
    whole, report = adjust_per_sample(noise, predict, **how)
    parts, same = adjust_per_sample(noise, predict, in_parts=in_parts, **how)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    assert torch.equal(same.iterations, report.iterations) and torch.equal(same.evaluations, report.evaluations)
    assert min(sizes[:3]) == len(noise) > size, "it was whole, then split"


def test_on_the_sphere_the_norm_stays(noise, predict):
    found, report = adjust_per_sample(
        noise, predict, target=0.0, learning_rate=0.05, max_iterations=40, constraint="sphere"
    )
    torch.testing.assert_close(found.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    assert (report.after < report.before).all()


def test_the_chi_gradient_is_that_of_the_log_density_of_the_norm():
    x = (3 * torch.randn(2, *SHAPE, dtype=torch.float64)).requires_grad_(True)
    norm = x.flatten(1).norm(dim=1)
    energy = norm.square() / 2 - (x[0].numel() - 1) * norm.log()
    (expected,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(chi_gradient(x.detach(), 1.0), expected)


def test_a_noise_below_the_target_is_returned_untouched(noise, predict):
    found, report = adjust_per_sample(noise, predict, target=1e9)
    assert torch.equal(found, noise)
    assert report.iterations.tolist() == [0] * 6
    assert report.evaluations.tolist() == [2] * 6


def test_without_iterations_it_only_measures(noise, predict):
    found, report = adjust_per_sample(noise, predict, target=0.0, max_iterations=0)
    assert torch.equal(found, noise)
    assert torch.equal(report.before, report.after)
    assert not report.reached.any()


def test_an_unreachable_target_keeps_the_best_noise_and_says_so(noise, predict):
    found, report = adjust_per_sample(noise, predict, target=0.0, learning_rate=0.5, max_iterations=15)
    d = predict(found).flatten(1).norm(dim=1)
    torch.testing.assert_close(d, report.after)
    torch.testing.assert_close(report.after, report.history[: len(report.history)].min(dim=0).values)
    assert "NOT REACHED for 6 of 6" in report.lines()[1]


def test_batchwise_equals_equation_10(noise, predict):
    gamma, rho = 0.7, 5.0
    expected = noise.clone()
    for _ in range(3):
        for i in range(len(expected)):
            e0 = predict(expected[i : i + 1])
            delta = rho * e0 / e0.norm()
            expected[i] = expected[i] - gamma * (predict(expected[i : i + 1] + delta) - e0)[0]
    found, report = adjust_batchwise(noise, predict, strength=gamma, radius=rho, adjustments=3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert report.evaluations.tolist() == [12] * 6


def test_batchwise_of_strength_zero_changes_no_bit(noise, predict):
    found, _ = adjust_batchwise(noise, predict, strength=0.0)
    assert torch.equal(found, noise)


def test_batchwise_counts_its_calls(noise, predict):
    calls = []
    adjust_batchwise(noise, lambda x: calls.append(1) or predict(x), adjustments=2)
    assert len(calls) == 4


def test_zero_magnitude_divides_nothing(noise):
    found, report = adjust_batchwise(noise, torch.zeros_like)
    assert torch.equal(found, noise)
    assert report.after.tolist() == [0.0] * 6


def test_search_keeps_the_smallest_of_what_it_drew(predict):
    def draw(i):
        return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(i))

    found, report = search_noise(draw, predict, candidates=9)
    magnitudes = torch.stack([predict(draw(i)).flatten(1).norm(dim=1) for i in range(9)])
    torch.testing.assert_close(report.after, magnitudes.min(dim=0).values)
    for i, k in enumerate(magnitudes.argmin(dim=0).tolist()):
        assert torch.equal(found[i], draw(k)[i])
    assert report.evaluations.tolist() == [18] * 4


def test_an_exception_from_the_progress_callback_ends_the_work(noise, predict):
    def stop(i, d):
        if i == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adjust_per_sample(noise, predict, target=0.0, on_step=stop)
