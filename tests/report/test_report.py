"""What people read: names as they are, tables that are tables, every point in its figure, a
terminal kept tidy."""

import re
from pathlib import Path

import pytest

from bench.calibrate.calibration import FittedStage
from bench.core.load import load, load_point
from bench.core.quantity import Quantity
from bench.core.specs.suite import Suite
from bench.core.units import seconds
from bench.count.document import count_document
from bench.count.point import count_model
from bench.measure.timing.sampling import summarise
from bench.report.documents import ceilings_document
from bench.report.figures import registry as figures
from bench.report.figures.accuracy import predicted_vs_measured
from bench.report.progress import SuiteProgress
from bench.report.render import to_markdown
from bench.report.result import Result, sentinel_spread, unsteady_words
from bench.report.tables.count import count_table
from bench.report.tables.doctor import gemm_ceiling
from bench.report.tables.pencil import chain_table
from bench.report.tables.points import points_table
from bench.report.tables.table import counted, measured, number, quantity, table
from bench.report.write import write_report
from bench.results.records import CeilingsRecord, Probe, SentinelReading
from bench.studies.pencil.analytic import chain
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.demand import Demand, Headroom
from bench.studies.pencil.waterfall import waterfall
from support.calibrations import calibration
from support.records import environment, point_record
from support.terminal import shown


@pytest.mark.parametrize(
    "name", ["[bold]x", "[/x]", "tiny[depth=8,frames=17]", ":smile:", "a\\", "x\x1b[31m\ny"]
)
def test_names_are_shown_as_they_are(name):
    text = shown(table(name, [name], [[name]]))
    assert text.count(name.replace("\x1b", "\\x1b").replace("\n", "\\n")) == 3


def test_a_terminal_leaves_details_out_and_markdown_names_each_provenance():
    columns = ["point", measured("time (median)"), counted("work", detail=True)]
    made = table("Points", columns, [["a|b", number(0.0285, seconds), None]], note="n = 7")
    text = shown(made)
    assert "Points (measured; n = 7)" in text
    assert "28.5 ms" in text
    assert "work" not in text
    assert to_markdown(made).splitlines() == [
        "| point | time (median; measured) | work (counted) |",
        "|---|---:|---:|",
        "| a\\|b | 28.5 ms | – |",
    ]


def test_count_names_its_overrides_and_each_class_once():
    point = load_point("tiny", "tiny-image", "eager-fp32", {"depth": 2, "workload.steps": 3})
    text = shown(
        count_table(count_document(point, count_model(point.model, point.workload, "fp32")))
    )
    assert "tiny[depth=2] on tiny-image[steps=3] (counted)" in text
    assert len(re.findall("linear", text)) == 1


def test_figures_are_written_as_people_read_them():
    text = shown(chain_table(chain(Assumptions(), Demand(), Headroom())), 200)
    assert "262,144" in text
    assert "2.621e+05" not in text
    assert quantity(Quantity(1.69e6, 1.5e6, 2e6), seconds).text == "469 h (417 h to 556 h)"


def test_stage_names_do_not_fold_on_a_narrow_terminal():
    record = point_record().model_copy(
        update={"model": "a-model-of-some-length[denoiser.width=1024]"}
    )
    assert "denoise_step" in shown(points_table([record]), 80)


def test_the_report_says_how_the_machine_drifted(measured):
    records = [
        point_record().model_copy(update={"sentinel": SentinelReading(before_s=a, after_s=b)})
        for a, b in ((0.010, 0.011), (0.010, 0.013))
    ]
    middle, off, n = sentinel_spread(records)
    assert (middle, n) == (pytest.approx(0.0105), 4)
    assert off == pytest.approx(0.013 / 0.0105 - 1)
    assert sentinel_spread([point_record()]) is None
    assert (
        "The machine itself, by one fixed matrix product" in (measured[0] / "report.md").read_text()
    )


def test_a_stalled_sample_is_told_beside_the_headline_and_in_the_table():
    stopped = summarise([0.1] * 9 + [5.1], [0.1], "timeout", True)
    record = point_record().model_copy(update={"timings": {"denoise_step": stopped}})
    said = unsteady_words([point_record(), record])
    where = "tiny tiny-clip eager-fp32 denoise_step"
    assert said.startswith(f"1 sample stalled, for 5.1 s in {where}, whose median is 100 ms")
    assert unsteady_words([record, record]).startswith("2 samples stalled, for 5.1 s in tiny")
    assert "timeout; 1 of 10 samples stalled, for 5.1 s at most" in points_table([record]).texts[0]
    drifted = record.model_copy(update={"sentinel": SentinelReading(before_s=1.0, after_s=2.0)})
    assert "one fixed matrix product" in unsteady_words([drifted])
    assert "1 sample stalled" in unsteady_words([drifted])
    assert unsteady_words([point_record()]) is None
    assert points_table([point_record()]).texts[0][-1] == "converged"


def test_the_gemm_ceiling_says_its_shape():
    def probe(n: int, taken_s: float) -> Probe:
        return Probe(
            kind="gemm",
            dtype="fp32",
            backend=None,
            shape={"m": n, "n": n, "k": n},
            flops=2 * n**3,
            bytes_moved=None,
            timing=summarise([taken_s] * 7, [], "converged", True),
        )

    record = CeilingsRecord(
        fingerprint="c",
        suite="s",
        started_utc="",
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=environment(),
        probes=[probe(256, 1e-4), probe(1024, 0.1)],
        telemetry=None,
    )
    assert (
        gemm_ceiling(record)
        == "GEMM ceiling: 336 GFLOP/s, the best of the shapes, at m=256 n=256 k=256 in fp32"
    )
    assert ceilings_document(record)["peak"]["gemm_shape"] == {
        "m": 256,
        "n": 256,
        "k": 256,
        "dtype": "fp32",
    }


def test_the_reports_tables_have_no_gaps_and_a_cpu_opens_with_no_sora(measured):
    directory, _ = measured
    text = write_report(directory).read_text()
    rows = text.splitlines()
    starts = [
        i for i, row in enumerate(rows) if row.startswith("|") and not rows[i - 1].startswith("|")
    ]
    # waterfall, movers, errors, parameters and the other ones, whole videos, cold starts, memory,
    # ceilings, bandwidth, points, traffic, attention, environment
    assert len(starts) == 14
    assert all(rows[i + 1].startswith("|---") for i in starts)
    assert "which is no GPU" in text
    assert text.index("Sora") > text.index("goes wrong") > text.index("hour of this CPU (measured)")
    assert "the best of the shapes, at m=" in text
    assert (
        "`ldt-bench run ./suite.json --device cpu` in this directory" in text
    )  # micro.yaml is no preset


def result(records=(), fitted=None) -> Result:
    return Result(
        directory=Path(),
        suite=load(Suite, "smoke"),
        records=list(records),
        calibration=fitted,
        headline=None,
        headline_missing="not calibrated",
        bars=waterfall(Assumptions()),
    )


def test_no_prediction_falls_outside_its_figure():
    stages = [
        FittedStage(
            point="p",
            stage="denoise_step",
            tokens=1,
            flops=1,
            measured_s=1.0,
            fitted_s=1.1,
            held_out_s=h,
        )
        for h in (0.01, 50.0, None)
    ]
    fitted = calibration()
    fitted = fitted.model_copy(
        update={"fits": {"eager-bf16": fitted.fit_for(None).model_copy(update={"stages": stages})}}
    )
    axes, below = predicted_vs_measured(result(fitted=fitted)).figure.axes
    assert below.get_ylim()[1] > 4900
    low, high = axes.get_ylim()
    assert low < 0.01 < 50.0 < high
    assert axes.get_xlim() == (low, high)


@pytest.mark.parametrize("name", [r"a$\frac$b", "_hidden", "$x^2$"])
def test_a_name_in_a_legend_is_no_formula(tmp_path, name):
    record = point_record().model_copy(update={"model": name})
    assert "latency_vs_tokens" in figures.save_all(tmp_path, result([record]))
    assert f">{name}<" in (tmp_path / "latency_vs_tokens.svg").read_text().replace("> ", ">")


def test_on_a_terminal_the_directory_stays_above_the_bar(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    with SuiteProgress("[bold]x") as progress:
        progress.opened(tmp_path / "a[b]c")
        progress.watch(1, 5, "tiny")
        progress.note("not calibrated: too few")
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err))
    assert f"results in {tmp_path}/a[b]c" in lines
    assert "not calibrated: too few" in lines


def test_the_tornado_is_drawn_with_its_provenance(tmp_path):
    from bench.studies.pencil.demand import Demand, Headroom
    from bench.studies.pencil.sensitivity import pencil_base, sensitivity

    swings = sensitivity(pencil_base(Assumptions()), Demand(), Headroom())
    captions = figures.save_chain(tmp_path, waterfall(Assumptions()), swings)
    assert set(captions) == {"waterfall", "tornado"}
    drawn = (tmp_path / "tornado.svg").read_text()
    assert all(word in drawn for word in ("counted", "stated or chosen", "factorised"))
    assert "tornado" not in figures.save_chain(tmp_path, waterfall(Assumptions()), None)
