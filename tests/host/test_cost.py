"""What the nodes cost, without a clock: model evaluations, and a batch that equals its samples.

The same code as `make bench-cost`, which also measures time and memory.
"""

from benchmarks.cost.measurements import COLUMNS, eight_together, evaluations, figure
from benchmarks.cost.subjects import Subject, exact_model, in_float64
from benchmarks.report import table
from support.executor import Host
from support.graphs.checkpoint import MEMORIZED, SIZE, text


def test_evaluations_on_the_exact_model(host: Host) -> None:
    rows = list(evaluations(exact_model(host)))
    assert len(rows) == 5
    assert all(row["verdict"] == "pass" for row in rows), "\n" + table(rows, COLUMNS)


def test_a_batch_equals_its_samples(host: Host) -> None:
    row = eight_together(exact_model(host))
    assert row["verdict"] == "pass", row


def test_a_batch_equals_its_samples_on_the_small_lab(host: Host, checkpoint) -> None:
    """Exactly in double precision; in single AdamW turns rounding of the network into steps."""
    out = host.run({"p": text(MEMORIZED), "n": text("")}, checkpoint)
    fast = {"target_magnitude": 0.02, "learning_rate": 0.1}
    lab = Subject("small lab", host, checkpoint["m"], out["p"][0], out["n"][0], (4, SIZE, SIZE), fast)
    row = eight_together(in_float64(lab))
    assert row["verdict"] == "pass", row
    single = eight_together(lab)
    assert float(single["ours"]) < 5e-4, "the host's attention for CPUs splits a batch by its size; seen: 4e-5"


def test_a_missed_bound_is_said() -> None:
    assert figure("m", "n", 1.1, 1.03, vanilla=1.0)["verdict"] == "SHORT"
    assert figure("m", "n", 1.02, 1.03, vanilla=1.0)["verdict"] == "pass"
    assert figure("m", "n", 5, 4, exact=True)["verdict"] == "SHORT"
