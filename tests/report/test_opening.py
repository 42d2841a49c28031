"""The page answers before it explains: question, number, doubt, picture; then what there is."""

import re

import pytest

from bench.calibrate.predict import shown as of_dimension
from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.specs.suite import Suite
from bench.core.specs.workload import Workload
from bench.report.contents import fit_tables
from bench.report.figures import drawing
from bench.report.figures.rates import rates, rates_of
from bench.report.numbers import without_exponents
from bench.report.opening.answer import answer_of, doubt_of, subject_of
from bench.report.opening.sections import CARRIES
from bench.report.result import read_result
from bench.report.tables.planning import headline_lines
from bench.report.write import write_report
from bench.results.records import SentinelReading
from bench.results.store import PAGE, SUITE, Store
from bench.studies.pencil.sensitivity import headline_swings
from support.ablations import record as recipe_record
from support.pages import a_gpus_result, written
from support.paths import ROOT
from support.records import count, environment, point_record

UNSTEADY = "machine not steady: off by up to 72%"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gpu") / "result"
    return directory, written(a_gpus_result(directory))


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A result of a suite of ablations, on a CPU."""
    directory = tmp_path_factory.mktemp("ablations")
    (directory / SUITE).write_text(load(Suite, "ablations-cpu").model_dump_json())
    with Store(directory) as store:
        for made in (recipe_record("fp8-bf16", 6.0), recipe_record("int8-weight-bf16", 3.0)):
            store.append_record(made.model_copy(update={"environment": environment()}))
    return directory, written(directory)


def shaken(off: float):
    """A point of a machine whose sentinel is off by so much."""
    reading = SentinelReading(before_s=0.01, after_s=0.01 * (1 + off))
    steady = SentinelReading(before_s=0.01, after_s=0.01)
    return [
        point_record().model_copy(update={"fingerprint": f"p{i}", "sentinel": s})
        for i, s in enumerate((steady, steady, reading))
    ]


def page_of(directory, records) -> str:
    (directory / SUITE).write_text(load(Suite, "smoke").model_dump_json())
    with Store(directory) as store:
        for record in records:
            store.append_record(record)
    return written(directory)


def headings(page: str) -> list[str]:
    return re.findall(r'<h2 id="([\w-]+)">', page)


def test_the_answer_and_its_evidence_and_the_picture_stand_before_every_explanation(gpu):
    _, page = gpu
    opening = page[page.index("<main") : page.index('<h2 id="waterfall">')]
    question, number, picture, words = (
        opening.index(said)
        for said in (
            "How many minutes of video does an hour of one h100-sxm make?",
            ">0.2</strong>",
            'id="figure-waterfall"',
            "What the five words mean",
        )
    )
    assert question < number < picture < words
    for evidence in ("<li>0.18 to 0.23, 90 % interval", "held-out error of a step 5.0%", "(n = 3)"):
        assert number < opening.index(evidence) < picture
    assert headings(page)[0] == "answer"


def test_the_text_report_opens_in_the_same_way(gpu):
    directory, _ = gpu
    lines = [line for line in (directory / "report.md").read_text().splitlines() if line]
    assert lines[1] == "**How many minutes of video does an hour of one h100-sxm make?**"
    assert lines[2] == "**0.2** minutes of video per GPU-hour (fitted)"
    assert next(line for line in lines if line.startswith("!")).endswith("(figures/waterfall.png)")


def test_a_machine_that_was_not_steady_says_so_at_the_number(tmp_path):
    page = page_of(tmp_path, shaken(0.72))
    box = page[page.index('<div class="headline') :]
    assert box.startswith('<div class="headline doubted">')
    assert box.index(UNSTEADY) < box.index('<ul class="evidence">')
    assert f"**[{UNSTEADY}]**" in (tmp_path / "report.md").read_text()


def test_a_steady_machine_has_no_such_mark(tmp_path):
    page = page_of(tmp_path, shaken(0.02))
    assert '<div class="headline">' in page
    assert "not steady" not in page
    assert doubt_of(read_result(tmp_path)) is None


def a_headline(gpu: str, unsteady: str | None):
    minutes = {"value": 13.4, "low": 4.9, "high": 31.6}
    named = {"model": "tiny", "workload": "tiny-video", "recipe": "eager", "gpu": gpu}
    return {
        "headline": named | {"minutes_per_gpu_hour": minutes, "provenance": "measured"},
        "outcomes": {"ok": 1, "unstable": 0},
        "unsteady": unsteady,
    }


def test_the_terminal_names_the_devices_hour_and_the_doubt():
    assert headline_lines(a_headline("cpu", None)) == [
        "headline: 13.4 (4.9 to 31.6) minutes of video per hour of this CPU, tiny tiny-video eager"
        " on cpu (measured)"
    ]
    assert "minutes of video per GPU-hour" in headline_lines(a_headline("h100-sxm", None))[0]
    doubted = a_headline("cpu", "why") | {"held_out": {"mean": 0.1, "worst": 0.2, "n": 9}}
    first, sure, *_ = headline_lines(doubted)
    assert first.endswith("(measured, machine not steady)")
    assert sure.startswith("how sure: not at all, since the machine was busy")


def test_a_cpus_report_never_says_gpu_hour(measured, recipes):
    directory, _ = measured
    write_report(directory)
    for folder in (directory, recipes[0]):
        for name in ("report.md", PAGE):
            assert "GPU-hour" not in (folder / name).read_text()
    assert "minutes of video per hour of this CPU" in (directory / PAGE).read_text()


def test_a_gpus_report_does(gpu):
    directory, page = gpu
    assert "GPU-hour" in page
    assert "this CPU" not in page + (directory / "report.md").read_text()


def test_a_result_of_recipes_shows_them_first(recipes):
    directory, page = recipes
    result = read_result(directory)
    assert subject_of(result) == "ablations"
    assert headings(page)[:2] == ["answer", "ablations"]
    assert page.index('id="figure-ablations"') < page.index('<h2 id="ablations">')
    answer = answer_of(result)
    assert answer.number == "2.4 ×"
    assert answer.sentence.startswith("int8-weight-bf16 is the fastest of 2 recipes: 2.4 times")


def test_a_result_without_a_headline_shows_its_points_first(tmp_path):
    page = page_of(tmp_path, [point_record()])
    assert headings(page) == ["answer", "points", "reproduce"]
    assert "One call takes denoise_step 1 s" in page


def test_what_there_is_not_has_no_heading_and_stands_in_one_line(tmp_path):
    page = page_of(tmp_path, [point_record()])
    ids = headings(page)
    assert re.findall(r'<li><a href="#([\w-]+)">', page) == ids
    gone = {
        "waterfall",
        "movers",
        "accuracy",
        "stages",
        "energy",
        "ceilings",
        "claims",
        "ablations",
    }
    assert not gone & set(ids)
    (line,) = re.findall(r"Not in this result: .*", page)
    for words in ("the pencil estimate (not calibrated)", "ceilings (this suite probes none)"):
        assert words in line
    assert "ablations" not in line  # which the suite was never about
    for section in page.split("<section ")[1:]:
        shown = section.split("</h2>")[1].split("</section>")[0]
        assert re.search(r"<table|<figure|<dl|<pre", shown), section[:80]


def test_a_gpus_page_has_all_its_sections_and_the_navigation_lists_them(gpu):
    _, page = gpu
    assert re.findall(r'<li><a href="#([\w-]+)">', page) == headings(page)
    assert {"waterfall", "accuracy", "energy", "ceilings", "claims"} <= set(headings(page))


def test_the_parameters_that_matter_are_shown_and_the_others_folded(measured):
    directory, _ = measured
    result = read_result(directory)
    fit = result.fit
    carried = result.carried(fit)
    found = fit_tables(fit, result)
    few, rest = ([row[0] for row in found[k].texts] for k in ("parameters", "other_parameters"))
    assert few == sorted(few, key=lambda name: -carried[name])
    assert all(carried[name] >= CARRIES for name in few)
    assert all(carried[name] < CARRIES for name in rest)
    assert sorted([*few, *rest]) == sorted(fit.parameters)
    assert 0 < len(few) < len(fit.parameters) / 2
    page = written(directory)
    folded = page[page.index(f"{len(rest)} more parameters") :].split("</details>")[0]
    assert all(f">{name}</th>" in folded for name in rest)
    assert "those that scale at least 5% of the headline" in page


def test_the_share_of_a_parameter_is_what_its_change_moves(measured):
    from bench.calibrate.cost.seconds import seconds_by_class, share_by_parameter
    from bench.calibrate.cost.work import Work

    fit = read_result(measured[0]).fit
    work = Work.of(count(linear_flops=10**12, attention_flops=10**11))
    theta = {name: p.value for name, p in fit.parameters.items()} | {"linear_efficiency": 0.5}
    before = sum(seconds_by_class(work, theta, fit.device).values())
    faster = theta | {"linear_efficiency": 0.5 * 1.001}
    after = sum(seconds_by_class(work, faster, fit.device).values())
    share = share_by_parameter([work], theta, fit.device)["linear_efficiency"]
    assert share == pytest.approx((before - after) / before / 0.001, rel=0.01)


def test_what_moves_a_headline_by_hand():
    """20 guided steps of 10 s in all, 2 s of decoding, 1 s of text: 13 s for a clip of 1 s."""
    workload = load(Workload, "tiny-video")
    assert (workload.steps, workload.forwards_per_step) == (20, 2)
    stages = {
        "denoise_step": Quantity(10.0, 9.0, 12.0),
        "vae_decode": Quantity(2.0, 1.9, 2.1),
        "text_encode": Quantity(1.0, 1.0, 1.0),
    }
    swings = {s.factor: s for s in headline_swings(workload, stages, "measured")}
    assert next(iter(swings)) == "guidance"
    an_hour = workload.video_s / 60 * 3600
    for factor, ends in {
        "guidance": (13 - 11 / 2, 13),
        "steps": (13, 8),
        "seconds of denoising": (12, 15),
        "seconds of VAE decode": (12.9, 13.1),
        "seconds of text encode": (13, 13),
    }.items():
        assert swings[factor].minutes == pytest.approx(tuple(an_hour / s for s in ends))
        assert swings[factor].fleet is None
    assert swings["steps"].fold == pytest.approx(13 / 8)


def test_the_tornado_of_the_headline_is_drawn_from_them(measured):
    directory, _ = measured
    page = written(directory)
    assert 'id="figure-tornado"' in page
    assert "seconds of denoising" in page[page.index('<h2 id="movers">') :]


def test_recipes_are_bars_with_intervals_and_dollars_where_a_price_is_known(recipes, tmp_path):
    result = read_result(recipes[0])
    video, found = rates_of(result)
    made = result.points[0]
    assert video == f"{made.model} on {made.workload}"
    assert [rate.name for rate in found][:2] == ["int8-weight-bf16", "fp8-bf16"]
    assert found[0].minutes.low < found[0].minutes.value < found[0].minutes.high
    assert found[0].usd is None  # a CPU has no price here
    with drawing.plt.style.context(drawing.STYLE):
        assert len(rates(result).figure.axes) == 1
    assert 'id="figure-rates"' in recipes[1]


def test_one_recipe_is_no_choice(gpu):
    directory, page = gpu
    assert rates(read_result(directory)) is None
    assert 'id="figure-rates"' not in page


def test_cards_of_one_recipe_are_told_apart_and_have_dollars(tmp_path):
    priced = environment().model_copy(update={"gpu": "h100-sxm", "device": "cuda"})
    (tmp_path / SUITE).write_text(load(Suite, "smoke").model_dump_json())
    one = recipe_record("fp8-bf16", 6.0)
    timings = {"denoise_step": one.timings["trajectory"], "vae_decode": one.timings["vae_decode"]}
    with Store(tmp_path) as store:
        for card in "ab":
            on = priced.model_copy(update={"device_uuid_hash": card})
            changed = {"fingerprint": card, "environment": on, "timings": timings, "against": None}
            changed["counts"] = dict.fromkeys(timings, count(linear_flops=10**9))
            store.append_record(one.model_copy(update=changed))
    result = read_result(tmp_path)
    _, found = rates_of(result)
    assert sorted(rate.name for rate in found) == ["fp8-bf16 on a", "fp8-bf16 on b"]
    assert all(rate.usd.low < rate.usd.value < rate.usd.high for rate in found)
    with drawing.plt.style.context(drawing.STYLE):
        assert [a.get_xlabel() for a in rates(result).figure.axes] == [
            "minutes of video per GPU-hour",
            "USD per minute of video",
        ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "extrapolated: 3.41e+16 FLOPs of a step, 9.4e+05 times the largest measured",
            "extrapolated: 34.1 PFLOP a step, 940,000 times the largest measured",
        ),
        ("FLOPs of a decode 6.224e+15 is 1.71e+04 times", "6.22 PFLOP a decode is 17,100 times"),
        ("no energy: FLOPs of a step are not known", "no energy: FLOPs of a step are not known"),
    ],
)
def test_warnings_of_older_calibrations_are_shown_without_exponents(old, new):
    assert without_exponents(old) == new


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("tokens", 184320.0, "184,320 tokens"),
        ("step_flops", 1.63e16, "16.3 PFLOP a step"),
        ("decode_flops", 9.9996e14, "1 PFLOP a decode"),
        ("attention_share", 0.857, "attention's share of FLOPs 86%"),
    ],
)
def test_a_warnings_numbers_are_as_people_write_them(name, value, text):
    assert of_dimension(name, value) == text


CONFUSING = (
    "What the pencil leaves out",
    "the one to trust a prediction by",
    "had not seen",
    "reaches over an end",
    "the machine moved by",
)


def test_sentences_that_confused_readers_are_gone():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").rglob("*.*")]
    texts = {p: p.read_text() for p in pages if p.suffix in (".py", ".md", ".j2", ".js")}
    assert len(texts) > 200
    log = ROOT / "docs" / "log.md"  # keeps what was said at the time
    found = [(p, words) for p, t in texts.items() if p != log for words in CONFUSING if words in t]
    assert found == []
