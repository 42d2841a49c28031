"""Training has one factor of its own, found beside the rates of inference."""

from functools import partial

import numpy as np
import pytest

from bench.calibrate.cost.parameters import NAMES
from bench.calibrate.fit import bootstrap, fit
from bench.calibrate.fit_pool import ceilings_for, fit_pool, observations_of
from bench.calibrate.holdout import hold_out
from bench.calibrate.make import calibrate
from bench.calibrate.pools import pools
from bench.calibrate.training import of_another, training_cost
from bench.core.errors import UserError
from bench.core.load import load_point
from bench.report.documents import calibration_document
from bench.results.records import PointRecord
from bench.run.basis import Basis
from bench.run.plan_time import call_time
from support.fits.pools import ceilings, counted, own_points, record, result

OWN, PUBLIC = "eager-bf16-cudnn-chunks", "eager-bf16-cudnn"


ATTENTION = NAMES.index("attention_efficiency")


@pytest.fixture(autouse=True, scope="module")
def few_draws():
    """Intervals of rough width, in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.calibrate.fit_pool.bootstrap", partial(bootstrap, draws=8))
        yield


def training(tokens: int, slow: float) -> PointRecord:
    return record(
        OWN,
        {"denoise_step": counted(tokens, 3072, 2), "train_step": counted(tokens, 3072, 2, times=3)},
        tokens=tokens + 1,
        slow=slow,
        slowed="train_step",
    )


def test_a_slow_backward_moves_no_inference_efficiency_and_its_factor_is_found():
    records = [*own_points(), *(training(tokens, 2.5) for tokens in (10240, 20480, 30720))]
    (pool,) = pools(records)
    with_it = fit_pool(pool, ceilings())
    (untrained,) = pools(
        [
            r.model_copy(
                update={"timings": {s: t for s, t in r.timings.items() if s != "train_step"}}
            )
            for r in records
        ]
    )
    without = fit_pool(untrained, ceilings())
    assert with_it.parameters == without.parameters
    assert without.training is None
    assert not any(s.stage == "train_step" for s in with_it.stages)
    found = with_it.training.factor
    assert found.value == pytest.approx(2.5, rel=0.05)
    assert found.low < 2.5 < found.high
    assert [s.held_out_s / s.measured_s for s in with_it.training.stages] == pytest.approx(
        [1.0] * 3, rel=0.05
    )
    # As it was before, an observation like others, it pulls:
    rates, pulled = ceilings_for(ceilings(), "bf16", "cudnn"), observations_of(records)
    pulled += [
        o
        for o in observations_of(
            [
                r.model_copy(
                    update={
                        "timings": {"trajectory": r.timings["train_step"]},
                        "counts": {"trajectory": r.counts["train_step"]},
                    }
                )
                for r in records
                if "train_step" in r.timings
            ]
        )
    ]
    assert (
        fit(pulled, rates).theta[ATTENTION]
        < 0.95 * with_it.parameters["attention_efficiency"].value
    )


def test_one_training_step_has_a_wide_interval_and_more_narrow_it():
    one, two, six = of_another([1.3]), of_another([1.3, 1.3]), of_another([1.3] * 6)
    # By hand: 2 degrees of freedom, t = 2.920, 0.2 x sqrt(2).
    assert one.high / 1.3 == pytest.approx(np.exp(2.920 * 0.2 * 2**0.5), rel=1e-3)
    assert one.low == pytest.approx(1.3**2 / one.high)
    assert one.high > two.high > six.high > 1.3
    assert of_another([1.0, 4.0]).high > of_another([2.0, 2.0]).high


def test_training_is_predicted_by_its_factor_and_its_cost_feeds_the_chain(tmp_path):
    calibration = calibrate(result(tmp_path / "r", [*own_points(), training(20480, 2.5)]))
    fitted = calibration.fits[OWN]
    cost, missing = training_cost(fitted)
    assert missing is None
    assert cost.ratio.value == pytest.approx(2.5, rel=0.02)  # per FLOP, of the same operators
    assert cost.ratio.high / cost.ratio.low > 3
    assert len(cost.points) == 1
    rows, _ = hold_out(calibration, result(tmp_path / "later", [training(12288, 2.5)]))
    trained = next(r for r in rows if r.stage == "train_step")
    assert abs(trained.error) < 0.1
    assert trained.inside
    assert trained.predicted_s.high / trained.predicted_s.low > 3
    assert (
        calibration_document(calibration)["training"]["factor"]["value"]
        == fitted.training.factor.value
    )
    basis, point = (
        Basis("a test", "cuda", fits=calibration.fits),
        load_point("sora-20b", "image-512", OWN),
    )
    trained_s, _ = call_time(point, "train_step", counted(4096), basis)
    step_s, _ = call_time(point, "denoise_step", counted(4096), basis)
    assert trained_s / step_s == pytest.approx(fitted.training.factor.value)
    untrained = calibrate(result(tmp_path / "u", own_points()))
    with pytest.raises(UserError, match="train_step: the calibration has no training step"):
        hold_out(
            untrained,
            result(tmp_path / "v", [record(OWN, {"train_step": counted(2048)}, tokens=7)]),
        )
