"""Records of the same rates share a fit, whatever their recipes are called; training has one factor
of its own."""

import json
from functools import partial

import pytest

from bench.calibrate.calibration import Calibration
from bench.calibrate.cost.parameters import NAMES
from bench.calibrate.cost.seconds import seconds_by_class
from bench.calibrate.cost.work import Work
from bench.calibrate.estimate import estimate
from bench.calibrate.fit import bootstrap
from bench.calibrate.holdout import hold_out
from bench.calibrate.make import calibrate
from bench.calibrate.pools import execution_of, pools, rates_key
from bench.calibrate.read import read_calibration
from bench.core.errors import UserError
from bench.core.load import load, load_point, names
from bench.core.specs.recipe import Recipe
from bench.report.documents import calibration_document
from bench.results.records import PointRecord
from bench.run.basis import Basis
from bench.run.plan_time import call_time
from support.calibrations import THETA
from support.fits.pools import counted, own_points, record, result

OWN, PUBLIC = "eager-bf16-cudnn-chunks", "eager-bf16-cudnn"


ATTENTION = NAMES.index("attention_efficiency")


@pytest.fixture(autouse=True, scope="module")
def few_draws():
    """Intervals of rough width, in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.calibrate.fit_pool.bootstrap", partial(bootstrap, draws=8))
        yield


def wan_points(recipe: str = PUBLIC, ran: str | None = "cudnn") -> list[PointRecord]:
    return [
        record(
            recipe,
            {"denoise_step": counted(t, 1536, d)},
            model="wan2.1-t2v-1.3b",
            tokens=t,
            ran=ran,
        )
        for t, d in ((20280, 2), (32760, 4))
    ]


def test_own_and_public_points_of_the_same_kernels_feed_one_fit(tmp_path):
    records = [*own_points(), *wan_points()]
    calibration = calibrate(result(tmp_path / "r", records))
    assert list(calibration.fits) == [OWN]
    both = calibration.fits[OWN]
    assert both.recipes == [OWN, PUBLIC]
    assert [s.tokens for s in both.stages if s.point.startswith("wan")] == [20280, 32760]
    assert both.ranges["tokens"].high == 32760
    document = calibration_document(read_calibration(tmp_path / "r"))
    assert sum(p["point"].startswith("wan") for p in document["by_recipe"][PUBLIC]["points"]) == 2
    assert set(document["by_recipe"]) == {OWN, PUBLIC}
    (alone,) = calibrate(
        result(tmp_path / "wan", [*own_points(), *wan_points("compile-regional-bf16")])
    ).fits.values()
    assert len(both.stages) == len(alone.stages) + 2
    assert both.parameters["attention_efficiency"].value == pytest.approx(THETA[ATTENTION], rel=0.1)


@pytest.mark.parametrize(
    ("recipe", "ran"),
    [
        ("compile-regional-bf16", "cudnn"),
        ("fp8-bf16", "cudnn"),
        ("sparse-bf16", "cudnn"),
        ("eager-fp16", "cudnn"),
        ("offload-weights-bf16", "cudnn"),
        ("eager-bf16", "flash"),
    ],
)
def test_what_changes_the_rates_splits(recipe, ran):
    pooled = pools([*own_points(), *wan_points(recipe, ran)])
    assert [pool.recipes for pool in pooled] == [[OWN], [recipe]]
    assert pooled[0].key.attention == "cudnn"


@pytest.mark.parametrize(
    "recipe",
    [
        "eager-bf16-chunks",
        "eager-bf16-tiles",
        "steps-4-bf16",
        "batch-2-bf16",
        "batched-guidance-bf16",
        "factorised-bf16",
        "cache-first-block-bf16",
        "eager-bf16",
    ],
)
def test_what_changes_the_work_alone_does_not(recipe):
    assert execution_of(load(Recipe, recipe).model_dump(mode="json")) == {}


def test_a_field_that_is_not_known_here_splits():
    """Of a later version, or one whose author forgot this module."""
    settings = load(Recipe, "eager-bf16").model_dump(mode="json")
    assert execution_of(settings | {"cudnn_benchmark": True}) == {"cudnn_benchmark": True}
    every = [execution_of(load(Recipe, name).model_dump(mode="json")) for name in names("recipes")]
    assert {"compile": "regional"} in every


def test_the_kernel_that_ran_counts_and_in_older_records_the_recipe_does():
    """One recipe, two kernels: two fits; auto and cudnn, one kernel: one.  `auto` of a record that
    does not say stays so."""
    split = pools([*own_points("eager-bf16", "cudnn"), *wan_points("eager-bf16", "efficient")])
    assert [(p.key.attention, p.recipes) for p in split] == [
        ("cudnn", ["eager-bf16"]),
        ("efficient", ["eager-bf16"]),
    ]
    assert [len(p.records) for p in split] == [9, 2 + 3]  # decodes tell each of convolutions
    (one,) = pools([*own_points("eager-bf16", "cudnn"), *wan_points(PUBLIC, "cudnn")])
    assert one.asked == ["auto", "cudnn"]
    old = pools([*own_points("eager-bf16", None), *wan_points(PUBLIC, None)])
    assert [p.key.attention for p in old] == ["auto", "cudnn"]
    (mixed,) = pools(
        [
            *own_points("eager-bf16", "cudnn"),
            record("eager-bf16", {"denoise_step": counted(64)}, ran=None),
        ]
    )
    assert mixed.key.attention == "cudnn"  # as the others of its recipe say


def test_on_a_cpu_public_models_run_other_kernels():
    def on_cpu(r):
        return r.model_copy(
            update={"environment": r.environment.model_copy(update={"device": "cpu", "gpu": "cpu"})}
        )

    pooled = pools(map(on_cpu, [*own_points("eager-bf16", None), *wan_points("eager-bf16", None)]))
    assert [p.key.models for p in pooled] == ["own", "public"]
    assert rates_key(own_points()[0]).models is None


@pytest.fixture(scope="module")
def two_fits(tmp_path_factory) -> Calibration:
    return calibrate(
        result(
            tmp_path_factory.mktemp("two"), [*own_points(), *own_points("compile-regional-bf16")]
        )
    )


def test_a_recipe_that_was_not_measured_is_predicted_by_the_fit_of_its_rates(two_fits):
    calibration = two_fits
    assert calibration.fit_for(PUBLIC) is calibration.fits[OWN]
    assert calibration.fit_for(load(Recipe, PUBLIC)) is calibration.fits[OWN]
    assert calibration.fit_for("compile-regional-bf16") is calibration.fits["compile-regional-bf16"]
    assert calibration.fit_for(None) is calibration.fits[OWN]
    for name in ("fp8-bf16", "eager-fp32", "eager-bf16-math", "../recipes/eager-bf16"):
        with pytest.raises(
            UserError,
            match="is not calibrated in this result; calibrated: eager-bf16-cudnn-chunks, comp",
        ):
            calibration.fit_for(name)
    point = load_point("dit-xl-2", "image-256", PUBLIC)
    predicted = estimate(point, calibration)
    assert (
        predicted.step_s == estimate(load_point("dit-xl-2", "image-256", OWN), calibration).step_s
    )
    assert not any("not calibrated" in w for w in predicted.warnings)


def test_an_older_calibration_is_read_and_has_its_own_recipe_alone(two_fits):
    calibration = two_fits
    data = json.loads(calibration.model_dump_json())
    for old in data["fits"].values():
        for field in ("recipes", "asked", "rates", "training"):
            del old[field]
    read = Calibration.model_validate(data)
    assert read.recipes == [OWN, "compile-regional-bf16"]
    assert read.fit_for(OWN).parameters == calibration.fits[OWN].parameters
    with pytest.raises(UserError, match="not calibrated"):
        read.fit_for(PUBLIC)


def test_of_two_fits_of_one_recipe_the_one_of_the_models_kind_predicts(two_fits):
    calibration = two_fits
    served = calibration.model_copy(update={"headline_recipe": PUBLIC})  # by its rates alone
    assert calibration_document(served)["recipe"] == OWN
    own = calibration.fits[OWN]
    public = own.model_copy(update={"rates": own.rates.model_copy(update={"models": "public"})})
    own = own.model_copy(update={"rates": own.rates.model_copy(update={"models": "own"})})
    both = calibration.model_copy(update={"fits": {OWN: own, f"{OWN} (public, cudnn)": public}})
    wan, sora = (
        load_point(m, w, PUBLIC)
        for m, w in (("wan2.1-t2v-1.3b", "480p-81f"), ("dit-xl-2", "image-256"))
    )
    assert both.fit_for(wan.recipe, wan.model) is public
    assert both.fit_for(sora.recipe, sora.model) is own
    assert f"{OWN} (public, cudnn)" in calibration_document(both)["by_recipe"]
    alone = calibration.model_copy(update={"fits": {OWN: public}})
    predicted = estimate(sora, alone)
    assert predicted.provenance == "extrapolated"
    assert (
        "fitted on public models, and on a CPU dit-xl-2 runs other kernels" in predicted.warnings[0]
    )


def test_forecasts_look_it_up_the_same_way(two_fits):
    calibration = two_fits
    basis = Basis("a test", "cuda", fits=calibration.fits)
    point, work = load_point("dit-xl-2", "image-256", PUBLIC), counted(4096)
    seconds, provenance = call_time(point, "denoise_step", work, basis)
    theta = {name: p.value for name, p in calibration.fits[OWN].parameters.items()}
    assert provenance == "fitted"
    assert seconds == pytest.approx(
        sum(seconds_by_class(Work.of(work), theta, calibration.fits[OWN].device).values())
    )
    assert call_time(point, "train_step", work, basis)[1] == "extrapolated"  # none was timed


def test_holdout_predicts_recipes_of_the_same_rates(two_fits, tmp_path):
    calibration = two_fits
    rows, left_out = hold_out(
        calibration, result(tmp_path / "later", [*wan_points(), *wan_points("fp8-bf16")])
    )
    assert [r.point for r in rows] == [r.label for r in wan_points()]
    assert max(abs(r.error) for r in rows) < 0.1
    assert len(left_out) == 2
    assert all("fp8-bf16 is not calibrated" in line for line in left_out)
