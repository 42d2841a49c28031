"""The page: one file that loads nothing, tells where every number comes from, and shows names as
names."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
from test_fit import calibration, count, environment
from test_store import point_record

from bench.calibrate.calibration import FittedStage, Headline, Reference
from bench.calibrate.cost_model import PARAMETERS
from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.specs.suite import Suite
from bench.core.units import seconds
from bench.measure.device.telemetry import nothing
from bench.measure.timing.sampling import summarise
from bench.report.figures import drawing
from bench.report.figures.drawing import PROVENANCES
from bench.report.figures.latency import latency_vs_tokens
from bench.report.figures.registry import save_all
from bench.report.numbers import binary, change, plain, traffic_rate
from bench.report.render import to_html
from bench.report.result import read_result
from bench.report.tables.table import counted, measured, number, quantity, span, table
from bench.report.write import write_report
from bench.results.readings import Energy, Memory, Series, StageMemory, StageTelemetry, Summary
from bench.results.records import CeilingsRecord, Probe
from bench.results.store import CALIBRATION, PAGE, SUITE, Store

EVIL = "<script>alert(1)</script>"
WORSE = "\"><img src=x onerror=alert(2)>'-->]]>&amp;</style></title></svg>"
EVERY_FIGURE = [
    "waterfall",
    "predicted_vs_measured",
    "latency_vs_tokens",
    "roofline",
    "efficiencies",
    "stage_split",
    "memory",
    "device_over_time",
    "ceilings",
    "bandwidth_vs_size",
]


def gpu_environment(name: str = "NVIDIA H100 80GB HBM3"):
    return environment().model_copy(
        update={"gpu": "h100-sxm", "device": "cuda", "device_name": name}
    )


def telemetry(watts: float) -> StageTelemetry:
    """A stage's readings: power without a gap, a clock held down now and then, no GPM."""
    n = 30
    clocks = [1.98e9 - 3e8 * (i % 7 == 3) for i in range(n)]
    missing = dict.fromkeys(
        [
            "dram_util_percent",
            "tensor_util_percent",
            "sm_util_percent",
            "sm_occupancy_percent",
            "dram_bytes_per_s_derived",
        ],
        "the driver has no GPM",
    )
    return StageTelemetry(
        reason=None,
        missing=missing,
        n=n,
        sampled_over="timed",
        sm_clock_hz=Summary(min=1.68e9, median=1.98e9, max=1.98e9, n=n),
        memory_clock_hz=Summary(min=2.6e9, median=2.6e9, max=2.6e9, n=n),
        power_w=Summary(min=watts - 20, median=watts, max=watts + 20, n=n),
        temperature_c=Summary(min=50, median=60, max=66, n=n),
        throttle_fractions={"hw_thermal_slowdown": 4 / n},
        throttled=True,
        power_limited=False,
        series=Series(
            t_s=[0.1 * i for i in range(n)],
            sm_clock_hz=clocks,
            memory_clock_hz=[2.6e9] * n,
            power_w=[watts + 20 * (-1) ** i for i in range(n)],
            temperature_c=[50 + i / 2 for i in range(n)],
            throttle_reasons=[["hw_thermal_slowdown"] if c < 1.9e9 else [] for c in clocks],
        ),
        energy=Energy(energy_j=watts * 0.5, power_w=watts, calls=9, window_s=4.5),
        dram_util_percent=None,
        tensor_util_percent=None,
        sm_util_percent=None,
        sm_occupancy_percent=None,
        dram_bytes_per_s_derived=None,
    )


def probe(kind: str, rate: float, size: int, dtype: str = "bf16") -> Probe:
    moved = kind in ("copy", "triad", "read", "write")
    work = {"bytes_moved": size, "flops": None} if moved else {"flops": size, "bytes_moved": None}
    shape = {"bytes": size} if moved else {"m": size, "n": size, "k": size}
    taken = [size / rate * f for f in (0.98, 1.0, 1.0, 1.0, 1.0, 1.01, 1.03)]
    return Probe(
        kind=kind,
        dtype=dtype,
        backend="flash" if kind == "attention" else None,
        shape=shape,
        timing=summarise(taken, [], "converged", True),
        **work,
    )


def a_gpus_result(directory, model: str = "own", reason: str | None = None, suite: str = "smoke"):
    """A result as a GPU would give it, invented for these tests: every reading is there, one stage
    has gaps."""
    records = [
        CeilingsRecord(
            fingerprint="c",
            suite="s",
            started_utc="2026-01-01T00:00:00+00:00",
            wall_s=1.0,
            outcome="ok",
            reason=None,
            environment=gpu_environment(),
            telemetry=None,
            probes=[
                probe("gemm", 700e12, 10**13),
                probe("gemm", 400e12, 10**12),
                probe("attention", 500e12, 10**13),
                probe("conv3d", 300e12, 10**13),
                *(
                    probe(kind, 2.8e12 * f, size)
                    for kind in ("copy", "triad", "read", "write")
                    for size, f in ((2**22, 3.0), (2**28, 1.1), (2**31, 1.0))
                ),
            ],
        )
    ]
    stages = []
    work = count(
        linear_flops=10**13,
        attention_flops=4 * 10**12,
        bytes_modelled_min=10**10,
        bytes_modelled_max=4 * 10**10,
        bytes_peak_activations=3 * 10**9,
    )
    for i, tokens in enumerate((1024, 4096, 16384)):
        name = model if i < 2 else f"{model}-wide"
        step_s = 0.02 * 4**i
        taken = [step_s * f for f in (0.99, 1.0, 1.0, 1.01, 1.0, 1.02, 1.0)]
        peak = StageMemory(
            peak_allocated=8 * 10**9,
            peak_reserved=9 * 10**9,
            device_used=10**10,
            activations=2 * 10**9,
        )
        several = {
            stage: work.model_copy(update={"linear_flops": 10**13 * 4**i})
            for stage in ("denoise_step", "vae_decode")
        }
        records.append(
            point_record().model_copy(
                update={
                    "fingerprint": f"p{i}",
                    "model": name,
                    "workload": f"clip-{i}",
                    "tokens": tokens,
                    "environment": gpu_environment(),
                    "recipe": "eager-bf16",
                    "counts": several,
                    "timings": {s: summarise(taken, [], "converged", True) for s in several},
                    "telemetry": {s: telemetry(500 + 60 * i) for s in several},
                    "reason": reason,
                    "memory": Memory(
                        weights=6 * 10**9,
                        peak_allocated=8 * 10**9,
                        peak_reserved=9 * 10**9,
                        by_stage=dict.fromkeys(several, peak),
                        reason=None,
                    ),
                }
            )
        )
        stages += [
            FittedStage(
                point=records[-1].label,
                stage=s,
                tokens=tokens,
                flops=c.flops,
                measured_s=step_s,
                fitted_s=step_s * 1.03,
                held_out_s=step_s * 0.93 if s == "denoise_step" else None,
            )
            for s, c in several.items()
        ]
    fitted = calibration()
    parameters = {
        name: p.model_copy(update={"unit": PARAMETERS[name].unit})
        for name, p in fitted.fit_for(None).parameters.items()
    }
    one = fitted.fit_for(None).model_copy(
        update={"stages": stages, "parameters": parameters, "constant_mfu_flops_per_s": 4e14}
    )
    with Store(directory) as store:
        for record in records:
            store.append_record(record)
    (directory / SUITE).write_text(
        load(Suite, "smoke").model_copy(update={"name": suite}).model_dump_json()
    )
    minutes = Quantity(0.2, 0.18, 0.23)
    headline = Headline(
        model=model,
        workload="clip-0",
        recipe="eager-bf16",
        gpu="h100-sxm",
        minutes_per_gpu_hour=minutes,
        video_s=minutes,
        provenance="fitted",
        warnings=[reason] if reason else [],
    )
    reference = Reference(
        gpu="h100-sxm",
        gemm_ceiling_flops_per_s=7e14,
        denoise_minutes=0.22,
        minutes=minutes,
        guided_minutes=0.1,
        provenance="extrapolated",
        warnings=["extrapolated: tokens"],
    )
    (directory / CALIBRATION).write_text(
        fitted.model_copy(
            update={"fits": {"eager-bf16": one}, "headline": headline, "reference": reference}
        ).model_dump_json()
    )
    return directory


class Seen(HTMLParser):
    """Elements with their attributes and the text inside."""

    VOID = ("meta", "br", "use", "path", "rect", "circle")

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_endtag(self, tag):
        while self.open and self.elements[self.open.pop()][0] != tag:
            pass

    def handle_data(self, data):
        for i in self.open:
            self.texts[i] += data

    def all(self, *tags: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attrs, " ".join(text.split()))
            for (tag, attrs), text in zip(self.elements, self.texts, strict=True)
            if tag in tags
        ]


def a_cpus_result(directory):
    """One point without a fit, nothing read but the clock."""
    none = nothing("no NVML on a CPU")
    record = point_record().model_copy(
        update={
            "telemetry": {"denoise_step": none},
            "memory": Memory(
                weights=10**7, peak_allocated=None, peak_reserved=None, reason="measured in turns"
            ),
        }
    )
    with Store(directory) as store:
        store.append_record(record)
    (directory / SUITE).write_text(
        load(Suite, "smoke").model_copy(update={"name": "mine"}).model_dump_json()
    )
    return directory


def written(directory) -> str:
    """The page, with its figures in the one format that it needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "FORMATS", ("svg",))
        write_report(directory)
    return (directory / PAGE).read_text()


@pytest.fixture(scope="module")
def gpu_page(tmp_path_factory) -> str:
    return written(a_gpus_result(tmp_path_factory.mktemp("gpu") / "result"))


def test_the_page_is_one_file_that_loads_nothing(gpu_page):
    text = gpu_page
    assert len(text.encode()) < 1_000_000
    for tag, attrs in Seen(text).elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert "src" not in attrs
        for name in ("href", "xlink:href"):
            assert attrs.get(name, "#").startswith("#"), (tag, attrs)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_every_number_in_a_table_says_its_provenance_on_hover_and_in_text(gpu_page):
    numbers = [
        (attrs, text)
        for attrs, text in Seen(gpu_page).all("td")
        if "n" in (attrs.get("class") or "").split() and text not in ("", "–")
    ]
    assert len(numbers) > 100
    for attrs, words in numbers:
        assert (attrs.get("title") or "").split(":")[0] in PROVENANCES, (attrs, words)
    for text in gpu_page.split("<table>")[1:]:
        headings = text.split("</thead>")[0]
        assert (
            any(f">{word}</span>" in headings for word in PROVENANCES)
            or "provenance" in headings
            or "what" in headings
        )


def test_what_is_shown_of_a_gpu(gpu_page):
    text = " ".join(Seen(gpu_page).texts[0].split())
    for words in (
        "SM clock (MHz)",
        "70.7 %",
        "the driver has no GPM",
        "throttled: hw_thermal_slowdown 13%",
    ):
        assert words in text
    assert "Not read: energy" not in text
    assert "250 J" in text
    for words in (
        "A11",
        "off by",
        "Dollars a minute of video",
        "8.65 to 23.8",
        "the pencil says 25.2 times as much",
    ):
        assert words in text


def test_a_gap_has_its_reason(tmp_path):
    text = Seen(written(a_cpus_result(tmp_path / "r"))).texts[0]
    assert "Not read: no NVML on a CPU." in text
    assert "Peak memory not read: measured in turns." in text
    assert "Not calibrated, so nothing is predicted here." in text
    assert "No headline" in text
    assert "ldt-bench run ./suite.json --device cpu" in text  # its suite is no preset


def test_names_are_text_wherever_they_are_shown(tmp_path):
    directory = a_gpus_result(
        tmp_path / "r", model=f"{EVIL}{WORSE}", reason=f"why {EVIL}", suite=WORSE
    )
    text = written(directory)
    seen = Seen(text)
    assert len(seen.all("script")) == 1
    assert not seen.all("img")
    assert not any(name.startswith("on") for _, attrs in seen.elements for name in attrs)
    assert "<script>alert" not in text
    assert any(f"{EVIL}" in words for _, words in seen.all("th"))


def test_the_page_is_made_to_be_read_by_all(gpu_page):
    seen = Seen(gpu_page)
    assert seen.all("html")[0][0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "h1", "title"):
        assert len(seen.all(landmark)) == 1
    ids = [attrs["id"] for _, attrs in seen.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs, _ in [*seen.all("a"), *seen.all("svg"), *seen.all("section")]:
        for name in ("href", "aria-labelledby", "aria-describedby"):
            assert attrs.get(name, f"#{ids[0]}").removeprefix("#") in ids
    assert all(attrs.get("scope") in ("col", "row") for attrs, _ in seen.all("th"))
    assert len(seen.all("table")) == len(seen.all("caption"))
    assert all(attrs["role"] == "img" for attrs, _ in seen.all("svg"))
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_every_figure_is_drawn_for_print_and_says_where_it_comes_from(tmp_path):
    pictures = save_all(tmp_path / "figures", read_result(a_gpus_result(tmp_path / "r")))
    assert list(pictures) == EVERY_FIGURE
    for name, picture in pictures.items():
        for kind in drawing.FORMATS:
            assert (tmp_path / "figures" / f"{name}.{kind}").stat().st_size > 2000
        assert any(f"({p}" in picture.caption or p in picture.caption for p in PROVENANCES)
        assert (
            picture.caption.split(".")[0] in (tmp_path / "figures" / f"{name}.svg").read_text()
        )  # it travels along
    for name in (
        "predicted_vs_measured",
        "latency_vs_tokens",
        "roofline",
        "stage_split",
        "ceilings",
        "bandwidth_vs_size",
    ):
        assert "n = 7" in pictures[name].caption
    assert "24 samples with clocks held down" in pictures["device_over_time"].caption


def test_the_same_records_draw_the_same_files(tmp_path):
    result = read_result(a_cpus_result(tmp_path / "r"))
    for folder in "ab":
        (tmp_path / folder).mkdir()
        with plt.style.context(drawing.STYLE):
            drawing.save(latency_vs_tokens(result), tmp_path / folder, "x", "a title")
    for kind in drawing.FORMATS:
        assert (tmp_path / "a" / f"x.{kind}").read_bytes() == (
            tmp_path / "b" / f"x.{kind}"
        ).read_bytes()


@pytest.mark.parametrize(
    ("cell", "text", "key"),
    [
        (quantity(Quantity(0.0285, 0.028, 0.029), seconds), "28.5 ms (28 ms to 29 ms)", "0.0285"),
        (number(5004.0, seconds), "83.4 min", "5004.0"),
        (number(2**28, binary), "256 MiB", str(2**28)),
        (number(-0.578, change), "-57.8%", "-0.578"),
        (span(37.9e9, 40e9, traffic_rate), "37.9 GB/s to 40 GB/s", "37900000000.0"),
        (number(0.0), "0", "0.0"),
        (number(None), "–", None),
        ("n=3", "n=3", None),
    ],
)
def test_a_page_sorts_by_the_value_behind_a_text(cell, text, key):
    made = table("t", [counted("size"), measured("x")], [[number(2**20, binary), cell]])
    ((head, _),) = [th for th in Seen(to_html(made)).all("th") if th[0]["scope"] == "row"]
    ((attrs, shown),) = Seen(to_html(made)).all("td")
    assert (shown, attrs.get("data-key")) == (text, key)
    assert head["data-key"] == str(2**20)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (79.497, "79.5"),
        (3.92136e-5, "0.0000392"),
        (128275.0, "128,000"),
        (5.0, "5"),
        (0.5, "0.5"),
        (999.96, "1,000"),
        (1e-7, "1e-07"),
        (4.2e12, "4.2e+12"),
        (0.0, "0"),
    ],
)
def test_plain_numbers(value, text):
    assert plain(value) == text
