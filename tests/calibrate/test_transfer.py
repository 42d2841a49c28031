"""A calibration carried to another card: what is said of it, and what is refused."""

import json

import numpy as np
import pytest

from bench.calibrate.calibration import default_recipe
from bench.calibrate.cost.parameters import NAMES
from bench.calibrate.cost.work import Work
from bench.calibrate.holdout import hold_out
from bench.calibrate.make import calibrate
from bench.calibrate.predict import draw_seconds
from bench.calibrate.read import read_calibration
from bench.calibrate.transfer import SPREAD, transfer
from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.gpu import Gpu
from support.calibrations import calibration
from support.fits.cards import altered, as_card, slower
from support.records import count

FP32 = ("--set", "recipe.dtype=fp32")


@pytest.fixture
def cards(measured, tmp_path):
    """The measured CPU's result, the same as if of an A100, and of an H100 twice as fast."""
    directory, _ = measured
    a100 = altered(directory, tmp_path / "a100", as_card("a100-80gb", "NVIDIA A100-SXM4-80GB", 1.0))
    calibrate(a100)
    h100 = altered(directory, tmp_path / "h100", as_card("h100-sxm", "NVIDIA H100 80GB HBM3", 0.5))
    return directory, a100, h100


def test_another_card_is_refused_unless_carried_over(measured, cards, tmp_path):
    directory, a100, h100 = cards
    with pytest.raises(
        UserError, match=r"measured on NVIDIA H100 80GB HBM3 \(h100-sxm\).*--transfer"
    ):
        hold_out(read_calibration(a100), h100)
    rows, _ = hold_out(read_calibration(a100), h100, carried=True)
    # Twice the ceilings, half of the times: what is launched anew is all that does not carry over.
    here_too, _ = hold_out(
        read_calibration(directory), altered(directory, tmp_path / "same", slower(1.0))
    )
    steps = [
        (a.raw_error, b.raw_error)
        for a, b in zip(rows, here_too, strict=True)
        if a.stage == "denoise_step"
    ]
    assert steps
    for carried, own in steps:
        assert -0.05 <= carried - own <= 1.2
    assert all(row.baseline_error is None for row in rows)


def test_nothing_is_carried_between_a_cpu_and_a_gpu(here, cards):
    """Every door: predict by name and by ceilings, holdout, analytic, plan, run's forecast; either
    way."""
    cpu, a100, h100 = map(str, cards)
    tiny, sora = (
        ("tiny", "-w", "tiny-video"),
        ("smoke", "--choose-for", "tiny", "-w", "tiny-video"),
    )
    doors = [
        (("predict", *tiny, "--calibration", cpu, "--gpu", "h100-sxm"), "h100-sxm"),
        (("predict", *tiny, "--calibration", cpu, "--ceilings", h100), "h100-sxm"),
        (
            ("predict", *tiny, "--calibration", a100, "--recipe", "eager", *FP32, "--gpu", "cpu"),
            "a100-80gb",
        ),
        (
            (
                "predict",
                *tiny,
                "--calibration",
                a100,
                "--recipe",
                "eager",
                *FP32,
                "--ceilings",
                cpu,
            ),
            "a100-80gb",
        ),
        (("calibrate", cpu, "--against", h100), "h100-sxm"),
        (("calibrate", cpu, "--against", h100, "--transfer"), "h100-sxm"),
        (("calibrate", a100, "--against", cpu, "--transfer"), "a100-80gb"),
        (("analytic", "--calibration", cpu, "--gpu", "h100-sxm"), "h100-sxm"),
        (("analytic", "--calibration", a100, "--gpu", "cpu"), "a100-80gb"),
        (("run", *sora, "--calibration", cpu, "--gpu", "h100-sxm"), "h100-sxm"),
        (("run", "smoke", "--dry-run", "--calibration", cpu, "--gpu", "h100-sxm"), "h100-sxm"),
        (("run", "smoke", "--dry-run", "--calibration", a100, "--device", "cpu"), "a100-80gb"),
    ]
    for arguments, other in doors:
        code, out, err = here(*arguments)
        lines = err.strip().splitlines()
        assert (code, len(lines)) == (2, 1), (arguments, err)
        assert other in lines[0]
        assert "cpu" in lines[0]
        assert "Traceback" not in err
        assert not out.strip()


def test_a_claim_about_a_gpu_is_not_judged_by_a_cpu(here, cards):
    code, out, _ = here(
        "claims", "--calibration", str(cards[0]), "--claim", "dollars-per-minute", "--json"
    )
    (claim,) = json.loads(out)["claims"]
    assert code == 0
    assert "by 19 latencies that others published of h100-sxm" in claim["why"]


def test_on_a_gpu_the_default_is_half_precision_and_float32_is_asked_for(here, cards):
    _, a100, _ = cards
    asked = ("predict", "tiny", "-w", "tiny-video", "--calibration", str(a100))
    code, _, err = here(*asked)
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "recipe 'eager-bf16' is not calibrated in this result; calibrated: eager-fp32" in err
    code, out, _ = here(*asked, "--recipe", "eager", *FP32, "--json")
    assert (code, json.loads(out)["recipe"]) == (0, "eager-fp32")
    assert "'eager-bf16' is not calibrated" in read_calibration(a100).reference_missing
    dtypes = {"eager-fp32": "fp32", "fp8-bf16": "bf16", "eager-fp16": "fp16"}
    assert default_recipe("h100-sxm", "eager-fp32", dtypes) == "fp8-bf16"
    assert default_recipe("h100-sxm", "eager-fp16", dtypes) == "eager-fp16"
    assert default_recipe("an-unknown-card", "eager-fp32", {"eager-fp32": "fp32"}) == "eager-bf16"
    assert default_recipe("cpu", "eager-fp32", dtypes) == "eager-fp32"


def test_carried_over_by_the_datasheets_each_ceiling_scales_with_its_own():
    c = calibration()
    h100, h200 = load(Gpu, "h100-sxm"), load(Gpu, "h200")
    moved, fit, words = transfer(c, c.fit_for(None), h200, h100)
    old, new = c.fit_for(None).device, fit.device
    assert new.gemm_flops_per_s == pytest.approx(
        old.gemm_flops_per_s * h200.peak_flops_per_s["bf16"] / 989.4e12
    )
    assert new.copy_bytes_per_s == pytest.approx(
        old.copy_bytes_per_s * h200.bandwidth_bytes_per_s / 3.35e12
    )
    assert moved.gpu == "h200"
    assert "scaled by the two datasheets" in words
    spread = np.log(np.array(fit.draws)).std(axis=0) - np.log(np.array(c.fit_for(None).draws)).std(
        axis=0
    )
    assert all(spread[NAMES.index(name)] > 0 for name in SPREAD)
    assert {name: p.value for name, p in fit.parameters.items()} == {
        name: p.value for name, p in c.fit_for(None).parameters.items()
    }


def test_a_card_without_that_dtype_is_refused():
    c = calibration()
    bare = load(Gpu, "h200").model_copy(update={"peak_flops_per_s": {"fp32": 1e12}})
    with pytest.raises(
        UserError, match="--gpu h200: its datasheet has no rate in bf16; known: fp32"
    ):
        transfer(c, c.fit_for(None), bare, load(Gpu, "h100-sxm"))


def test_predict_for_another_card_says_so(here, cards):
    asked = (
        "predict",
        "tiny",
        "-w",
        "tiny-video",
        "--calibration",
        str(cards[1]),
        "--recipe",
        "eager",
        *FP32,
    )
    code, out, _ = here(*asked, "--gpu", "h100-sxm", "--json")
    document = json.loads(out)
    assert (code, document["gpu"], document["provenance"]) == (0, "h100-sxm", "extrapolated")
    assert document["warnings"][0] == (
        "extrapolated: carried over to h100-sxm, on the ceilings of a100-80gb, "
        "scaled by the two datasheets"
    )
    assert document["usd_per_minute"] is not None
    code, _, err = here(*asked, "--gpu", "h10")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "did you mean" in err


def test_the_interval_says_how_far_a_carried_prediction_may_be_off():
    """Widest by a datasheet alone, narrowest on ceilings measured there, and never sure not to be
    faster."""
    c, h200 = calibration(), load(Gpu, "h200")
    fit, step = (
        c.fit_for(None),
        {"step": Work.of(count(linear_flops=8 * 10**14, attention_flops=6 * 10**14))},
    )

    def spread(fit):
        seconds = np.log(draw_seconds(step, fit)["step"])
        return np.percentile(seconds, 95) - np.percentile(seconds, 5), seconds.min()

    width, _ = spread(fit)
    on_ceilings, _ = spread(transfer(c, fit, h200, load(Gpu, "h100-sxm"), fit.device)[1])
    scaled, _ = spread(transfer(c, fit, h200, load(Gpu, "h100-sxm"))[1])
    alone, _ = spread(transfer(c, fit, h200, None)[1])
    assert width < on_ceilings < scaled < alone
    assert scaled > 2 * 1.645 * 0.10  # the ceilings alone, all together
    best = [
        [
            1.0 if name.endswith("efficiency") else value
            for name, value in zip(NAMES, draw, strict=True)
        ]
        for draw in fit.draws
    ]
    at_ceiling = fit.model_copy(update={"draws": best, "residuals": [0.0]})
    assert (
        spread(transfer(c, at_ceiling, h200, load(Gpu, "h100-sxm"), fit.device)[1])[1]
        < spread(at_ceiling)[1] - 0.05
    )
    unknown = transfer(c, fit, h200, None)[1].device
    assert unknown.gemm_flops_per_s == pytest.approx(0.82 * h200.peak_flops_per_s["bf16"])
    assert unknown.copy_bytes_per_s == pytest.approx(0.82 * h200.bandwidth_bytes_per_s)
