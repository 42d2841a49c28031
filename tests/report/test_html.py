"""The page: one file that loads nothing, tells where every number comes from, and shows names as
names."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest

from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.specs.suite import Suite
from bench.core.units import seconds
from bench.measure.device.telemetry import nothing
from bench.report.figures import drawing
from bench.report.figures.drawing import PROVENANCES
from bench.report.figures.latency import latency_vs_tokens
from bench.report.figures.registry import save_all
from bench.report.numbers import binary, change, plain, traffic_rate
from bench.report.render import to_html
from bench.report.result import read_result
from bench.report.tables.table import counted, measured, number, quantity, span, table
from bench.results.readings import Memory
from bench.results.store import SUITE, Store
from support.pages import EVIL, WORSE, a_gpus_result, written
from support.records import point_record

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
            address = attrs.get(name, "#")
            followed = tag == "a" and address.startswith("https://")  # by a reader, to a source
            assert address.startswith("#") or followed, (tag, attrs)
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
        "70.7%",
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
    assert "energy and clocks (no NVML on a CPU)" in text
    assert "Peak memory not read: measured in turns." in text
    assert "accuracy (not calibrated)" in text
    assert "no headline: not calibrated" in text
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
            address = attrs.get(name, f"#{ids[0]}")
            assert address.startswith("https://") or address.removeprefix("#") in ids
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
        (1e-7, "0.0000001"),
        (1e-10, "1e-10"),
        (4.2e12, "4.2e+12"),
        (0.0, "0"),
    ],
)
def test_plain_numbers(value, text):
    assert plain(value) == text
