"""The explore page in a real browser, served and exported: it is inert, filters, compares, and does
its sums right.

Needs `pip install -e '.[browser]'` and a Chromium (Debian's `chromium`, or `playwright
install chromium`).
"""

import csv
import io
import threading

import pytest

from bench.explore import grid as explore_grid
from bench.explore import page as explore_page
from bench.explore.data import read_table
from bench.explore.published import PUBLISHED, published_source
from bench.explore.server import ExploreServer
from bench.explore.whatif import Question
from bench.studies.pencil.demand import Demand, Headroom, fleet
from support.browser import VIEWS
from support.explore import EVIL, InProcess, ask, evil, lines, rewrite

pytestmark = pytest.mark.slow
SELECTS = ("calibration", "gpu", "model", "recipe", "size", "guidance")
TINY = {"calibration": "cpu/real", "model": "tiny", "size": "512x512", "guidance": "none"}


@pytest.fixture
def served(results):
    evil(results)
    with ExploreServer(results) as server:
        server.worker = InProcess(results)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def exported(results, tmp_path, monkeypatch) -> str:
    evil(results)
    monkeypatch.setattr(explore_grid, "sizes_of", lambda model: [(64, 64)])
    monkeypatch.setattr(explore_grid, "SECONDS_TO_COUNT", (1.0, 2.0, 4.0))
    table = read_table(results)
    asked = explore_grid.asked_of(table.calibrations, ["tiny"], [])
    cells = explore_grid.grid(results, asked, processes=1)
    (tmp_path / "page.html").write_text(
        explore_page.exported_page(explore_page.document(table, cells))
    )
    return (tmp_path / "page.html").as_uri()


@pytest.fixture
def opened(chromium):
    """opened(url, width, scheme) -> the page; at the end nothing was complained of, asked of a
    network, or popped up."""
    contexts, complaints = [], []

    def open_page(url: str, width: int = 1280, scheme: str = "light", **settings):
        contexts.append(
            chromium.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme, **settings
            )
        )
        page = contexts[-1].new_page()
        page.on("console", lambda m: complaints.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("dialog", lambda d: (complaints.append(f"dialog: {d.message}"), d.dismiss()))
        page.on(
            "request",
            lambda r: (
                complaints.append(f"asked for {r.url}")
                if not r.url.startswith((url.split("#")[0], "blob:", "data:"))
                else None
            ),
        )
        page.goto(url)
        page.wait_for_selector("html[data-ready=yes][data-drawn]")
        page.wait_for_selector("#tiles div, #state.error")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def minutes(page) -> float:
    return float(page.locator("#number").get_attribute("data-value"))


def tile(page, title: str) -> float:
    return float(page.locator("#tiles div", has_text=title).get_attribute("data-value"))


def until(page, expression: str) -> None:
    """Wait until it is true.  The page's policy allows no eval: it is asked again from outside."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def picked(page, **fields: str) -> None:
    for name, value in fields.items():
        field = page.locator(f"#ask [name={name}]")
        field.select_option(value) if name in SELECTS else field.fill(value)
    page.wait_for_timeout(400)  # until the last change is asked for
    page.wait_for_selector("#said:not(.stale) #tiles div")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_renders_at_every_width_and_in_both_themes(opened, served, width, scheme):
    page = opened(served.url, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#scatter .main-svg").count() > 0
    assert page.locator("#points tbody tr").count() > 5
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")


@pytest.mark.parametrize("kind", ["served", "exported"])
def test_a_name_that_is_a_script_is_text(opened, request, kind):
    source = request.getfixturevalue(kind)
    page = opened(source.url if kind == "served" else source)
    assert page.locator("#points tbody td", has_text=EVIL).count() > 3
    assert page.locator("#scatter .legend text", has_text=EVIL).count() == 1
    for by in ("gpu", "recipe", "workload", "result"):
        page.locator("#colour").select_option(by)
        page.wait_for_timeout(50)
    for i in range(2):
        page.locator("#points tbody tr", has_text=EVIL).nth(i).locator("td").first.click()
    assert EVIL in page.locator("#compared").inner_text()
    page.locator("#a").select_option("cpu/<img src=x onerror=alert(2)>")
    page.locator("#b").select_option("cpu/real")
    page.locator("#scatter .nsewdrag").first.hover()
    assert page.locator("img").count() == 0
    assert page.evaluate(
        "[...document.scripts].every(s => s.src.startsWith(location.origin) || "
        "s.id === 'data' || s.type === 'module')"
    )


def test_what_is_picked_is_what_is_drawn(opened, served):
    page = opened(served.url)
    drawn = int(page.locator("html").get_attribute("data-drawn"))
    page.get_by_role("searchbox").first.fill("tiny-factorised")
    until(page, f"document.documentElement.dataset.drawn > {drawn}")
    rows = page.locator("#points tbody tr").count()
    assert 0 < rows < len(read_table(served.results))
    assert (
        page.evaluate("document.getElementById('scatter').data.reduce((n, t) => n + t.x.length, 0)")
        == rows
    )


def test_two_results_are_compared_by_their_common_points(opened, served):
    double = [r for r in lines(served.results) if r["kind"] == "point"]
    for record in double:
        for timing in record["timings"].values():
            for key in ("median_s", "low_s", "high_s"):
                timing[key] *= 2
    rewrite(served.results, double, "cpu/slower")
    page = opened(served.url)
    page.locator("#a").select_option("cpu/real")
    page.locator("#b").select_option("cpu/slower")
    assert page.locator("#compared tbody td:nth-child(4)").all_inner_texts() == ["2"] * len(double)


def test_the_answer_comes_first_and_is_that_of_the_package(opened, served):
    page = opened(served.url)
    expected = InProcess(served.results).ask(
        Question(PUBLISHED, "wan2.1-t2v-14b", 1280, 720, 5, 16, 50, "cfg")
    )
    value = expected["minutes_per_gpu_hour"]["value"]
    assert minutes(page) == pytest.approx(value)
    heading = page.locator("h1").inner_text()
    assert heading == "How many minutes of video does wan2.1-t2v-14b make per hour on one h100-sxm?"
    assert page.locator("#unit").inner_text().startswith("minutes of video per GPU-hour fitted")
    assert page.locator("#sure").inner_text().startswith("Fitted to ")
    assert page.locator("#number").bounding_box()["y"] < 300
    bars = page.locator("#cards tbody tr")
    assert bars.count() == len(expected["cards"])
    assert bars.first.locator("th button").inner_text() == expected["cards"][0]["gpu"]
    first, second = (bars.nth(i).locator(".bar i").first.bounding_box()["width"] for i in (0, 4))
    shares = [expected["cards"][i]["minutes_per_gpu_hour"]["value"] for i in (0, 4)]
    assert first / second == pytest.approx(shares[0] / shares[1], rel=0.02)


def test_a_price_moves_its_card_alone_and_the_headline_of_the_chosen_one(opened, served):
    page = opened(served.url)
    dear = page.locator("#cards tbody tr.chosen")
    other = page.locator("#cards tbody tr", has_text="b200").locator("td.bar").nth(1)
    before = other.inner_text()
    dear.locator("input[type=number]").fill("3.6")
    assert tile(page, "Dollars a minute") == pytest.approx(3.6 / minutes(page))
    assert other.inner_text() == before
    slider = dear.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "3.65"
    assert page.evaluate("document.activeElement.type") == "range"
    assert tile(page, "Dollars a minute") == pytest.approx(3.65 / minutes(page))


def test_a_demand_takes_as_many_gpus_as_the_package_says(opened, served):
    page = opened(served.url)
    page.locator("#fleet summary").click()
    needed = float(page.locator("#gpus").get_attribute("data-value"))
    per_hour = minutes(page)
    assert needed == pytest.approx(fleet(Demand().minutes_per_day, per_hour, Headroom().factor))
    page.locator("[name=demand]").fill("1000")
    page.locator("[name=utilisation]").fill("0.25")
    needed = float(page.locator("#gpus").get_attribute("data-value"))
    assert needed == pytest.approx(fleet(1000, per_hour, Headroom(utilisation=0.25).factor))


def test_a_cpus_answer_never_says_gpu_hour(opened, served):
    page = opened(served.url)
    picked(page, **TINY, seconds="1")
    expected = InProcess(served.results).ask(
        ask(width="512", height="512", seconds="1", fps="16", steps="50")
    )
    assert minutes(page) == pytest.approx(expected["minutes_per_gpu_hour"]["value"])
    said = page.locator("section").first.inner_text()
    assert "minutes of video per hour of this CPU" in said
    assert "GPU-hour" not in said
    assert "Dollars" not in said
    assert page.locator("#by-card").is_hidden()
    assert page.locator("#fleet").is_hidden()


def test_a_link_brings_another_reader_to_the_same_answer(opened, served):
    page = opened(served.url)
    picked(page, model="sora-20b", gpu="b200", seconds="10", steps="30")
    page.locator("#cards tr.chosen input[type=number]").fill("5.5")
    page.get_by_role("searchbox").first.fill("factorised")
    page.locator("#colour").select_option("workload")
    page.locator("#b").select_option("cpu/real")
    page.locator("#link").click()
    again = opened(page.url)
    assert minutes(again) == minutes(page)
    assert tile(again, "Dollars a minute") == pytest.approx(5.5 / minutes(page))
    assert again.locator("h1").inner_text() == page.locator("h1").inner_text()
    assert again.get_by_role("searchbox").first.input_value() == "factorised"
    assert again.locator("#colour").input_value() == "workload"
    assert again.locator("#b").input_value() == "cpu/real"
    odd = opened(served.url + "#model=%3Cscript%3E&gpu=none&steps=x&price=b200:NaN&a=..")
    assert minutes(odd) > 0  # what the page does not offer is left as it was


def test_what_is_shown_is_saved_as_csv(opened, served):
    page = opened(served.url)
    page.get_by_role("searchbox").first.fill("tiny-factorised")
    page.wait_for_timeout(300)
    rows = saved(page, "points")
    shown = page.locator("#points tbody tr").count()
    assert len(rows) == shown > 0
    assert all("tiny-factorised" in row["model"] for row in rows)
    assert float(rows[0]["step_s"]) > 0
    cards = saved(page, "cards")
    assert [c["gpu"] for c in cards] == page.locator("#cards th button").all_inner_texts()
    chosen = next(c for c in cards if c["gpu"] == "h100-sxm")
    assert float(chosen["minutes_per_gpu_hour"]) == pytest.approx(minutes(page))


def test_no_cell_of_a_csv_is_a_formula(opened, results):
    records = [r for r in lines(results) if r["kind"] == "point"]
    for record in records:
        record["model"] = '=HYPERLINK("http://evil.example", "x")'
    rewrite(results, records)
    with ExploreServer(results) as server:
        server.worker = InProcess(results)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        rows = saved(opened(server.url), "points")
        server.shutdown()
    assert {row["model"] for row in rows} == {'\'=HYPERLINK("http://evil.example", "x")'}


def saved(page, name: str) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.locator(f"[data-csv={name}]").click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_text())))


def test_keys_alone_pick_a_card_search_and_compare(opened, served):
    page = opened(served.url)
    page.keyboard.press("/")
    page.keyboard.type("tiny")
    assert page.get_by_role("searchbox").first.input_value() == "tiny"
    card = page.locator("#cards th button", has_text="rtx-4090")
    card.focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('h1').textContent.includes('rtx-4090')")
    for i in range(2):
        page.locator("#points tbody tr").nth(i).locator("input").focus()
        page.keyboard.press("Space")
    assert page.locator("#compared tbody tr").count() == 1


def test_the_exported_panel_is_exact_at_a_node_and_says_so_between(opened, exported, results):
    page = opened(exported)
    picked(page, model="tiny", guidance="none", fps="24", seconds="2")
    exact = InProcess(results).ask(ask(seconds="2", fps="24", steps="50"))
    assert minutes(page) == pytest.approx(exact["minutes_per_gpu_hour"]["value"], rel=1e-4)
    picked(page, seconds="3")
    assert "interpolated between 49 and 97 frames" in page.locator("#warnings").inner_text()
    close = InProcess(results).ask(ask(seconds="3", fps="24", steps="50"))
    assert minutes(page) == pytest.approx(close["minutes_per_gpu_hour"]["value"], rel=0.1)
    page.locator("[name=seconds]").fill("60")
    page.wait_for_selector("#state.error")
    assert "this page holds 25 to 97" in page.locator("#state").inner_text()


def test_an_exported_page_answers_for_every_card(opened, tmp_path):
    asked = explore_grid.asked_of([published_source()], ["wan2.1-t2v-14b"], [])
    cells = explore_grid.grid(tmp_path, asked, processes=1)
    shown = explore_page.document(read_table(tmp_path), cells)
    (tmp_path / "page.html").write_text(explore_page.exported_page(shown))
    page = opened((tmp_path / "page.html").as_uri())
    expected = InProcess(tmp_path).ask(
        Question(PUBLISHED, "wan2.1-t2v-14b", 1280, 720, 5, 16, 50, "cfg")
    )
    assert minutes(page) == pytest.approx(expected["minutes_per_gpu_hour"]["value"], rel=1e-4)
    told = page.locator("#cards th button").all_inner_texts()
    fitting_first = sorted(expected["cards"], key=lambda c: not c["fits_memory"])
    assert told == [c["gpu"] for c in fitting_first]
    assert page.locator("#measured").is_hidden()


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_is_accessible(opened, served, width, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    page = opened(served.url, width, scheme, bypass_csp=True)  # axe is a script of its own
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 20
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []
