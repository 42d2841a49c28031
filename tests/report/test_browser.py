"""The page in a real browser: it renders at every width and in both themes, sorts, saves, and runs
nobody's script.

Needs `pip install -e '.[browser]'` and a Chromium (Debian's `chromium`, or `playwright install
chromium`).
"""

import xml.etree.ElementTree as ET

import pytest

from bench.results.store import PAGE
from support.browser import VIEWS
from support.pages import EVIL, WORSE, a_gpus_result, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def location(tmp_path_factory) -> str:
    """A page whose names want to be scripts."""
    directory = a_gpus_result(
        tmp_path_factory.mktemp("browser") / "result", model=EVIL, reason=WORSE
    )
    written(directory)
    return (directory / PAGE).as_uri()


@pytest.fixture
def opened(chromium, location):
    """opened(width, scheme) -> the page; at the end nothing was complained of, asked of a network,
    or popped up."""
    contexts, complaints = [], []

    def open_page(width: int = 1280, scheme: str = "light", **settings):
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
                if r.url != location and not r.url.startswith("blob:")
                else None
            ),
        )
        page.goto(location)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_renders_at_every_width_and_in_both_themes(opened, width, scheme):
    page = opened(width, scheme)
    assert (
        page.evaluate("document.documentElement.scrollWidth") == width
    )  # nothing hangs over the side
    assert page.locator("figure svg").count() == 10
    for figure in page.locator("figure svg").all():
        assert figure.bounding_box()["width"] > 300
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (scheme == "light")


def test_no_table_is_cut_at_1200_pixels(opened):
    page = opened(1200)
    tables = page.locator(".scroll:visible").all()
    assert len(tables) > 5
    for box in tables:
        wide = box.evaluate("e => [e.scrollWidth, e.clientWidth]")
        assert wide[0] <= wide[1], box.get_attribute("aria-label")


def test_a_table_that_is_wider_than_a_phone_scrolls_in_its_box_and_shows_so(opened):
    page = opened(400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    box = page.locator(".scroll[aria-label='Measured points']")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    assert "gradient" in box.evaluate("e => getComputedStyle(e).backgroundImage")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_it_is_accessible(opened, width, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    page = opened(width, scheme, bypass_csp=True)  # axe is a script of its own
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 20  # it did look
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []


def test_a_name_that_is_a_script_is_text(opened):
    page = opened()
    assert page.locator("tbody th", has_text=EVIL).count() > 3
    assert page.locator("svg text", has_text=EVIL).count() > 0
    assert page.evaluate("document.scripts.length") == 1


def column(page, table: str, number: int) -> list[str]:
    return page.locator(f"{table} tbody tr > :nth-child({number})").all_inner_texts()


def test_tables_sort_by_click_and_by_key(opened):
    page = opened()
    table = ".scroll[aria-label='Measured points'] table"
    heading = page.locator(f"{table} thead th").nth(3)
    assert heading.get_attribute("aria-sort") is None
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert (
        column(page, table, 4) == ["20 ms"] * 2 + ["80 ms"] * 2 + ["320 ms"] * 2 + [""] * 3
    )  # the reasons' rows
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(page, table, 4) == ["320 ms"] * 2 + ["80 ms"] * 2 + ["20 ms"] * 2 + [""] * 3
    page.locator(f"{table} thead th").nth(1).get_by_role("button").press("Space")
    assert [s for s in column(page, table, 2) if s] == ["denoise_step"] * 3 + ["vae_decode"] * 3
    assert heading.get_attribute("aria-sort") is None


def test_gaps_sort_last_both_ways(opened):
    page = opened()
    page.get_by_text("Every stage of").click()
    table = ".scroll[aria-label^='Predicted and measured'] table"
    button = page.locator(f"{table} thead th").nth(3).get_by_role("button")
    for _ in range(2):
        button.click()
        assert column(page, table, 4)[-3:] == ["–"] * 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_saved_from_the_page_on_white(opened, tmp_path, scheme):
    page = opened(scheme=scheme)
    for kind in ("SVG", "PNG"):
        with page.expect_download() as download:
            page.get_by_role(
                "button", name=f"Save {kind} of Minutes of video per hour of the device"
            ).click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
    text = (tmp_path / "waterfall.svg").read_text()
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--" not in text
    assert "currentColor" not in text
    assert "#1b1f24" in text
    png = (tmp_path / "waterfall.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") > 1000  # pixels wide


def test_the_theme_can_be_chosen_and_is_kept(opened):
    page = opened(scheme="dark")
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.reload()
    assert page.get_by_role("button", name="Dark theme").count() == 1


def test_it_can_be_walked_by_keyboard_alone(opened):
    page = opened(390)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.slice(0, 20)"))
    assert {"Save PNG", "median", "What the five words "} <= reached


def test_it_reads_without_a_script_and_prints(opened, tmp_path):
    page = opened(java_script_enabled=False)
    assert page.locator("button").count() == 0
    assert page.locator("table").first.is_visible()
    printed = opened(794, scheme="dark")  # of A4 at 96 to the inch
    printed.emulate_media(media="print")
    assert printed.evaluate("document.documentElement.scrollWidth") == 794
    assert (
        printed.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    printed.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 50_000
