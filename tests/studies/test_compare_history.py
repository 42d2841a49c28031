"""A history of runs: a slow regression, nothing changed, one cohort."""

import numpy as np
import pytest

from bench.core.errors import UserError
from bench.studies.compare.history import compare_history
from bench.studies.compare.pair import compare
from bench.studies.compare.spread import successive_sd
from support.records import point_record
from support.studies.compare import run_at, verdicts

STAGES = 16


POINT = point_record()


def test_a_slow_regression_is_seen_in_a_history_and_not_from_run_to_run():
    rng = np.random.default_rng(15)
    runs = [run_at(day, rng, 1.025**day, session=0.004) for day in range(1, 7)]
    assert compare(runs[-2], runs[-1]).verdict in ("SAME", "UNCLEAR")
    seen = compare_history(runs[-1], runs[:-1])
    assert seen.verdict == "SLOWER"
    assert seen.typical.ratio == pytest.approx(1.025**3, rel=0.01)


def test_a_history_in_which_nothing_changed():
    rng = np.random.default_rng(16)
    found = [
        compare_history(run_at(9, rng), [run_at(day, rng) for day in range(1, 6)])
        for _ in range(20)
    ]
    assert sum(v in ("SLOWER", "FASTER") for v in verdicts(found)) <= 1  # of 320
    assert sum(f.verdict == "SLOWER" for f in found) <= 1
    slower = compare_history(run_at(9, rng, 1.1), [run_at(day, rng) for day in range(1, 6)])
    assert np.mean([c.verdict == "SLOWER" for c in slower.changes]) > 0.7


def test_a_history_is_of_one_cohort_and_of_earlier_runs():
    rng = np.random.default_rng(17)
    b = run_at(9, rng)
    others = [
        run_at(10, rng),
        run_at(1, rng, torch="2.0"),
        run_at(2, rng, gpu="h100-sxm"),
        [r.model_copy(update={"suite": "other"}) for r in run_at(3, rng)],
        [
            r.model_copy(update={"reason": "not a true time: slowed 2 times"})
            for r in run_at(4, rng)
        ],
    ]
    with pytest.raises(UserError, match="no earlier run of the same suite"):
        compare_history(b, others)
    alone = compare_history(b, [*others, run_at(4, rng, code_version="old")])
    assert alone.kind == "pair"
    assert alone.code_a == ["old"]
    many = compare_history(
        b, [*others, *(run_at(day, rng, code_version=f"v{day}") for day in range(1, 9))]
    )
    assert many.code_a == ["v4", "v5", "v6", "v7", "v8"]
    assert all(c.runs == 5 for c in many.changes)


def test_a_trend_hardly_widens_the_spread():
    x = 0.02 * np.arange(5)
    assert successive_sd(x) == pytest.approx(0.02 / np.sqrt(2))
    assert successive_sd(x) < x.std(ddof=1) / 2
