"""profile: real calls on a CPU, its counts against the counts of `count`, its sum against the
step."""

import json

import pytest
import torch

from bench.core.load import load_point
from bench.count.point import count_point
from bench.measure.profile.take import profile_stage
from bench.measure.timing.clock import CpuClock
from bench.report.profile.icicle import boxes, icicle
from bench.report.profile.rows import Row, module_rows, together
from bench.report.profile.tables import modules_table, profile_line
from bench.results.profile import Profile, Rates
from support.cli import cli

CPU = torch.device("cpu")


def profiled(model, stage="denoise_step", recipe="eager-fp32", calls=3, **overrides) -> Profile:
    point = load_point(model, "tiny-clip", recipe, overrides, (stage,))
    return profile_stage(point, stage, CPU, CpuClock(), calls=calls)


@pytest.fixture(scope="module", params=["tiny", pytest.param("wan-tiny", marks=pytest.mark.slow)])
def taken(request):
    return request.param, profiled(request.param)


def test_every_counted_flop_stands_at_its_module(taken):
    model, profile = taken
    counted = count_point(load_point(model, "tiny-clip", "eager-fp32")).stages["denoise_step"]
    assert sum(row.flops for row in profile.modules) == profile.flops == counted.flops
    by_kind = {kind: 0 for kind in ("linear", "attention", "conv")}
    for row in profile.modules:
        if row.kind in by_kind:
            by_kind[row.kind] += row.flops
    assert by_kind == {kind: getattr(counted, f"{kind}_flops") for kind in by_kind}


def test_modules_that_multiply_took_time_and_names_are_those_of_the_model(taken):
    _, profile = taken
    heavy = [row for row in profile.modules if row.flops > 0.01 * profile.flops]
    assert heavy
    assert all(row.seconds > 0 for row in heavy), [r for r in heavy if not r.seconds]
    ran_alone = [row for row in profile.modules if row.seconds > 0 and not row.module]
    outside = sum(row.seconds for row in ran_alone)
    assert outside < 0.2 * profile.step_s  # guidance and the Euler step, outside the denoiser
    assert any("blocks.*" in together(row.module) for row in profile.modules)


def test_operators_and_residual_close_the_sum_to_the_step(taken):
    _, profile = taken
    assert profile.in_operators_s + profile.residual_s == pytest.approx(profile.step_s)
    assert 0.3 * profile.step_s < profile.in_operators_s < 1.3 * profile.step_s
    table = modules_table(profile)
    times = [row[3].value for row in table.rows]
    assert sum(times[:-1]) == pytest.approx(times[-1], rel=0.03)
    assert times[-1] == profile.step_s


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "stage"),
    [
        ("tiny", "vae_decode"),
        ("tiny", "text_encode"),
        ("tiny-ar", "decode_token"),
    ],
)
def test_other_stages(model, stage):
    profile = profiled(model, stage, calls=1)
    assert sum(row.flops for row in profile.modules) == profile.flops > 0
    heavy = max(profile.modules, key=lambda row: row.flops)
    assert heavy.seconds > 0
    assert "." in heavy.module


def test_the_icicle_has_all_the_time(taken):
    _, profile = taken
    root = boxes(profile)
    assert root.seconds == pytest.approx(profile.in_operators_s)
    drawn = icicle(profile)
    assert "blocks of a list together" in drawn.caption


RATES = Rates(gemm_flops_per_s=100.0, copy_bytes_per_s=10.0)


@pytest.mark.parametrize(
    ("flops", "moved", "spent", "share", "bound"),
    [
        (200, 1, 4.0, 0.5, "compute"),
        (10, 20, 4.0, 0.5, "memory"),
        (1, 1, 4.0, 0.025, "overhead"),
        (0, 0, 4.0, None, ""),
        (100, 0, 0.0, None, ""),
    ],
)
def test_what_bounds_a_row(flops, moved, spent, share, bound):
    row = Row("fc", "linear", spent, 1.0, flops, moved, moved)
    assert row.share_of_ceiling(RATES) == share
    assert row.bound(RATES) == bound


def test_small_rows_are_summed_up_and_lose_nothing(taken):
    _, profile = taken
    rows = module_rows(profile)
    assert sum(row.seconds for row in rows) == pytest.approx(profile.in_operators_s)
    assert sum(row.flops for row in rows) == profile.flops


@pytest.mark.slow
def test_the_command_writes_a_page_a_trace_and_numbers(tmp_path):
    out = tmp_path / "p"
    done = cli(
        *("profile", "tiny", "-w", "tiny-clip", "--recipe", "eager"),
        *("--set", "recipe.dtype=fp32", "--device", "cpu", "--calls", "1", "--out", str(out)),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert Profile.model_validate_json((out / "profile.json").read_text()).stage == "denoise_step"
    page = (out / "profile.html").read_text()
    assert "<svg" in page
    assert "in no operator" in page
    trace = json.loads((out / "trace.json").read_text())
    assert any("ldt:module" in e.get("name", "") for e in trace["traceEvents"])
    assert document["residual_s"] == pytest.approx(document["step_s"] - document["in_operators_s"])
    profile = Profile.model_validate_json((out / "profile.json").read_text())
    assert "a call:" in profile_line(profile)
    busy = profile.model_copy(update={"step_s": profile.in_operators_s / 2})
    assert "the machine was busy: profile again" in profile_line(busy)


def test_mistakes_are_one_line(tmp_path):
    wrong = cli("profile", "tiny", "-w", "tiny-clip", "--stage", "denois_step")
    assert wrong.returncode == 2
    assert "did you mean denoise_step?" in wrong.stderr
    lacking = cli("profile", "tiny", "-w", "tiny-clip", "--stage", "condition_encode")
    assert lacking.returncode == 2
    assert "Traceback" not in lacking.stderr


def test_a_trajectory_is_no_stage_of_its_own_and_a_failure_leaves_no_directory(here, tmp_path):
    out = tmp_path / "p"
    asked = ("profile", "tiny", "-w", "tiny-clip", "--out", str(out), "--stage")
    code, _, err = here(*asked, "trajectory")
    assert code == 2
    assert err.startswith("error: --stage 'trajectory' is not one of forward, ")
    assert err.count("\n") == 1
    code, _, _ = here(*asked, "condition_encode")
    assert (code, out.exists()) == (2, False)
