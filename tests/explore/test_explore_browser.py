"""The explore page in a real browser, served and exported: it is inert, filters, compares, and does
its sums right.

Needs `pip install -e '.[browser,explore]'` and a Chromium (Debian's `chromium`, or `playwright
install chromium`).
"""

import threading

import pytest

from bench.explore import grid as explore_grid
from bench.explore import page as explore_page
from bench.explore.data import read_table
from bench.explore.server import ExploreServer
from bench.studies.pencil.demand import Demand, Headroom, fleet
from support.browser import VIEWS
from support.explore import EVIL, InProcess, ask, evil, lines, rewrite

pytestmark = pytest.mark.slow


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
    monkeypatch.setattr(explore_grid, "SIZES", ((64, 64),))
    monkeypatch.setattr(explore_grid, "SECONDS", (1.0, 2.0, 4.0))
    table = read_table(results)
    cells = explore_grid.grid(results, table.calibrations, ["tiny"], [None])
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
                if not r.url.startswith((url, "blob:", "data:"))
                else None
            ),
        )
        page.goto(url)
        page.wait_for_selector("html[data-ready=yes][data-drawn]")
        page.wait_for_selector("#answer div, #state.error")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def tile(page, title: str) -> float:
    return float(page.locator("#answer div", has_text=title).get_attribute("data-value"))


def answered(page, change) -> None:
    """Change a field, and wait for the answer to it."""
    change()
    page.wait_for_selector("#answer:not(.stale) div")


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
    page.wait_for_function(f"document.documentElement.dataset.drawn > {drawn}")
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


def test_the_panels_sums_are_those_of_the_package(opened, served):
    page = opened(served.url)
    page.locator("[name=size]").select_option("256x256")
    page.locator("[name=seconds]").fill("1")
    answered(page, lambda: page.locator("[name=model]").select_option("tiny"))
    expected = InProcess(served.results).ask(
        ask(width="256", height="256", seconds="1", fps="24", steps="50")
    )
    minutes = expected["minutes_per_gpu_hour"]["value"]
    page.wait_for_function(
        f"Math.abs(document.querySelector('#answer div').dataset.value / {minutes} - 1) < 1e-9"
    )
    assert tile(page, "GPUs for the demand") == pytest.approx(
        fleet(Demand().minutes_per_day, minutes, Headroom().factor)
    )
    page.locator("[name=price]").fill("3.6")
    assert tile(page, "Dollars a minute") == pytest.approx(3.6 / minutes)
    page.locator("[name=demand]").fill("1000")
    page.locator("[name=utilisation]").fill("0.25")
    assert tile(page, "GPUs for the demand") == pytest.approx(
        fleet(1000, minutes, Headroom(utilisation=0.25).factor)
    )


def test_the_exported_panel_is_exact_at_a_node_and_says_so_between(opened, exported, results):
    page = opened(exported)
    answered(page, lambda: page.locator("[name=seconds]").fill("2"))
    exact = InProcess(results).ask(ask(seconds="2", fps="24", steps="50"))
    assert tile(page, "Minutes of video") == pytest.approx(
        exact["minutes_per_gpu_hour"]["value"], rel=0.06
    )  # 48 frames, 49
    assert "no server is asked" in page.locator("#how").inner_text()
    answered(page, lambda: page.locator("[name=seconds]").fill("3"))
    assert "interpolated between 49 and 97 frames" in page.locator("#warnings").inner_text()
    close = InProcess(results).ask(ask(seconds="3", fps="24", steps="50"))
    assert tile(page, "Minutes of video") == pytest.approx(
        close["minutes_per_gpu_hour"]["value"], rel=0.1
    )
    page.locator("[name=seconds]").fill("60")
    page.wait_for_selector("#state.error")
    assert "this page holds 25 to 97" in page.locator("#state").inner_text()


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_is_accessible(opened, served, width, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    page = opened(served.url, width, scheme, bypass_csp=True)  # axe is a script of its own
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 20
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []
