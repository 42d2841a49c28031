"""Records of the same rates share a fit, whatever their recipes are called; training has one factor
of its own."""

import json
from functools import partial

import numpy as np
import pytest

from bench.calibrate.calibration import Calibration
from bench.calibrate.cost_model import NAMES, Priced, Work, seconds_by_class
from bench.calibrate.estimate import estimate
from bench.calibrate.fit import bootstrap, fit
from bench.calibrate.fit_pool import ceilings_for, fit_pool, noise_of, observations_of
from bench.calibrate.holdout import hold_out
from bench.calibrate.make import calibrate
from bench.calibrate.pools import execution_of, pools, rates_key
from bench.calibrate.read import read_calibration
from bench.calibrate.training import of_another, training_cost
from bench.core.errors import UserError
from bench.core.load import load, load_point, names
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from bench.measure.timing.sampling import UNSTABLE, summarise
from bench.report.documents import calibration_document
from bench.results.counts import Operators, StageCount
from bench.results.records import AttentionRan, CeilingsRecord, PointRecord, Probe
from bench.results.store import SUITE, Store
from bench.run.basis import Basis
from bench.run.plan_time import call_time
from support.calibrations import CEILINGS, THETA
from support.pages import gpu_environment
from support.records import count, point_record

OWN, PUBLIC = "eager-bf16-cudnn-chunks", "eager-bf16-cudnn"
ATTENTION = NAMES.index("attention_efficiency")


@pytest.fixture(autouse=True, scope="module")
def few_draws():
    """Intervals of rough width, in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.calibrate.fit_pool.bootstrap", partial(bootstrap, draws=8))
        yield


def counted(
    tokens: int, width: int = 1536, depth: int = 30, head: int = 128, conv: int = 0, times: int = 1
) -> StageCount:
    """A transformer's forward, or (conv) a decoder of so many channels; `times` of each
    operator."""
    sizes = [
        (tokens, 3 * width, width),
        (tokens, width, width),
        (tokens, 4 * width, width),
        (tokens, width, 4 * width),
    ]
    rows = [("linear", *size, 2 * int(np.prod(size)), 0, 0, times * depth) for size in sizes]
    rows += [
        ("attention", tokens, tokens, head, 4 * tokens * tokens * width, 0, 0, times * depth),
        ("memory", 0, 0, 0, 0, 4 * tokens * width, 0, 12 * times * depth),
        ("activation", 0, 0, 0, 0, 16 * tokens * width, 0, times * depth),
    ]
    if conv:
        rows = [
            ("conv", 64 * tokens, conv, 27 * conv, 2 * 64 * tokens * conv * 27 * conv, 0, 0, 12),
            ("memory", 0, 0, 0, 0, 4 * tokens * conv, 0, 20),
        ]
    columns = map(list, zip(*rows, strict=True))
    flops = {
        kind: sum(r[4] * r[7] for r in rows if r[0] == kind)
        for kind in ("linear", "attention", "conv")
    }
    return count(
        operators=Operators(**dict(zip(Operators.model_fields, columns, strict=True))),
        linear_flops=flops["linear"],
        attention_flops=flops["attention"],
        conv_flops=flops["conv"],
    )


def record(
    recipe: str,
    stages: dict[str, StageCount],
    *,
    model: str = "sora-20b",
    tokens: int = 0,
    slow: float = 1.0,
    ran: str | None = "cudnn",
    slowed: str | None = None,
) -> PointRecord:
    """Its stages as the planted rates have them; `slowed` takes `slow` times as long."""
    workload = "480p-81f" if model.startswith("wan") else "sora-1min-512"
    point = load_point(
        model, workload, recipe, {"workload.steps": tokens} if tokens else {}
    )  # another point for each
    timings = {}
    for stage, c in stages.items():
        s = float(Priced([Work.of(c)], CEILINGS).seconds(THETA)[0]) * (
            slow if stage == slowed else 1.0
        )
        timings[stage] = summarise(
            [s * f for f in (0.999, 1.0, 1.0, 1.0, 1.0, 1.0, 1.001)], [], "converged", True
        )
    return point_record().model_copy(
        update={
            "fingerprint": point.fingerprint + "".join(stages),
            "model": point.model.name,
            "workload": point.workload.name,
            "recipe": recipe,
            "point": point.model_dump(mode="json"),
            "tokens": tokens or 1,
            "counts": stages,
            "timings": timings,
            "environment": gpu_environment(),
            "attention_ran": AttentionRan(backend=ran, chosen_by="torch", kernel=None)
            if ran
            else None,
        }
    )


def own_points(recipe: str = OWN, ran: str | None = "cudnn") -> list[PointRecord]:
    sizes = [
        (1024, 1536, 30),
        (2048, 768, 40),
        (4096, 3072, 8),
        (8192, 1536, 10),
        (16384, 1536, 6),
        (30720, 3072, 2),
    ]
    return [
        record(recipe, {"denoise_step": counted(t, w, d)}, tokens=t, ran=ran) for t, w, d in sizes
    ] + [
        record(recipe, {"vae_decode": counted(t, conv=c)}, tokens=t, ran=None)
        for t, c in ((512, 64), (1024, 128), (2048, 256))
    ]


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


def probe(kind: str, rate: float, work: int, shape: dict[str, int], **more: str | None) -> Probe:
    compute = kind in ("gemm", "attention", "conv3d")
    return Probe(
        kind=kind,
        shape=shape,
        flops=work if compute else None,
        bytes_moved=None if compute else work,
        timing=summarise([work / rate] * 7, [], "converged", True),
        **{"dtype": "bf16" if compute or kind == "activation" else "fp32", "backend": None, **more},
    )


def attention_probe(
    rate: float, tokens: int, backend: str = "cudnn", ran: str | None = None
) -> Probe:
    return probe(
        "attention",
        rate,
        10**15,
        {"batch": 1, "heads": 24, "tokens": tokens, "head_dim": 128},
        backend=backend,
        backend_ran=ran,
    )


def ceilings(*attention: Probe) -> CeilingsRecord:
    """Of the planted device."""
    probes = [
        probe("gemm", CEILINGS.gemm_flops_per_s, 10**13, {"m": 8192, "n": 8192, "k": 8192}),
        *(attention or [attention_probe(CEILINGS.attention_flops_per_s, 16384)]),
        probe(
            "conv3d",
            CEILINGS.conv_flops_per_s,
            10**13,
            {"channels": 256, "frames": 10, "height": 250, "width": 400},
        ),
        probe("activation", CEILINGS.activation_bytes_per_s, 10**9, {"bytes": 10**9}),
        *(probe("copy", rate, int(size), {"bytes": int(size)}) for size, rate in CEILINGS.ladder),
    ]
    return CeilingsRecord(
        fingerprint="c",
        suite="s",
        started_utc="2026-01-01T00:00:00+00:00",
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=gpu_environment(),
        probes=probes,
        telemetry=None,
    )


def result(directory, records, suite: str = "h100"):
    with Store(directory) as store:
        for r in (ceilings(), *records):
            store.append_record(r)
    (directory / SUITE).write_text(load(Suite, suite).model_dump_json())
    return directory


# What is pooled.


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


# Which fit predicts.


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


# Training.


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
    assert trained.predicted_s["high"] / trained.predicted_s["low"] > 3
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


# Ceilings and weights.


def test_the_attention_cap_is_the_best_probe_over_lengths_and_a_long_one_upsets_nothing():
    short = attention_probe(590e12, 32768)
    longest = attention_probe(600e12, 184320)
    assert ceilings_for(ceilings(short, longest), "bf16", "cudnn").attention_size == (
        184320,
        184320,
        128,
    )
    assert ceilings_for(
        ceilings(attention_probe(600e12, 32768), attention_probe(500e12, 184320)), "bf16", "cudnn"
    ).attention_flops_per_s == pytest.approx(600e12)
    (pool,) = pools(
        [*own_points(), record(OWN, {"denoise_step": counted(184320, 3072, 1)}, tokens=184320)]
    )
    at = Work.of(counted(184320, 3072, 42))
    fits = [
        fit_pool(pool, ceilings(*probes))
        for probes in ((attention_probe(600e12, 32768),), (short, longest))
    ]
    predicted = [
        sum(seconds_by_class(at, {n: p.value for n, p in f.parameters.items()}, f.device).values())
        for f in fits
    ]
    assert predicted[1] == pytest.approx(predicted[0], rel=0.01)
    assert predicted[0] == pytest.approx(float(Priced([at], CEILINGS).seconds(THETA)[0]), rel=0.03)
    for name in (
        "attention_efficiency",
        "attention_half_length",
        "attention_half_head",
        "linear_efficiency",
    ):
        assert fits[1].parameters[name].value == pytest.approx(
            fits[0].parameters[name].value, rel=0.05
        ), name


def test_the_ceiling_is_of_the_kernel_that_ran_else_of_what_the_recipe_asks_for():
    probes = ceilings(
        attention_probe(400e12, 16384, "flash"),
        attention_probe(600e12, 16384, "auto", ran="cudnn"),
        attention_probe(650e12, 16384, "cudnn"),
    )
    assert ceilings_for(probes, "bf16", "auto", "cudnn").attention_flops_per_s == pytest.approx(
        650e12
    )
    assert ceilings_for(probes, "bf16", "auto", "flash").attention_flops_per_s == pytest.approx(
        400e12
    )
    assert ceilings_for(probes, "bf16", "auto", "sage").attention_flops_per_s == pytest.approx(
        600e12
    )
    assert ceilings_for(probes, "bf16", "auto").attention_flops_per_s == pytest.approx(600e12)
    with pytest.raises(UserError, match="attention_flops_per_s in bf16, attention math"):
        ceilings_for(probes, "bf16", "math", "math")


def test_a_pool_without_its_ceiling_costs_that_pool_alone(tmp_path):
    calibration = calibrate(
        result(tmp_path / "r", [*own_points(), *own_points("eager-bf16-math", "math")])
    )
    assert list(calibration.fits) == [OWN]


def test_few_samples_weigh_as_their_confidence_has_it():
    """Two samples 2 % apart hold the median with 50 %: 0.674 standard deviations where 95 % takes
    1.960."""
    two = summarise([0.99, 1.01], [], "max_samples", True)
    assert two.confidence == pytest.approx(0.5)
    assert noise_of(two) == pytest.approx(0.01 * 1.960 / 0.6745, rel=1e-3)
    three = summarise([0.99, 1.0, 1.01], [], "max_samples", True)
    assert 0.01 < noise_of(three) < noise_of(two)
    many = summarise([1.0 + 0.001 * i for i in range(40)], [], "converged", True)
    assert noise_of(many) == many.relative_half_width
    assert noise_of(summarise([1.0], [], "timeout", True)) == UNSTABLE
    # The model's own error is the floor, so two that agree by chance weigh no more than many that
    # do.
    assert noise_of(summarise([1.0, 1.0], [], "max_samples", True)) == 0.0
