"""How fast the explore page opens and answers with many records.

    python tests/tools/bench_explore.py RESULT [POINTS]

RESULT is a measured result whose records are multiplied, at full length, into a temporary
directory.  Prints seconds of the server's answers, and, where playwright and a Chromium are there,
of the browser: from the address to a page that can be used, and from a choice to what it changes on
the screen.  Every figure is the median of several.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from explore_results import write_results

ROUNDS = 5
ROOT = Path(__file__).resolve().parents[2]


def main(like: Path, points: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        write_results(results, like, points)
        size = sum(f.stat().st_size for f in results.rglob("*.jsonl"))
        found = {"points": points, "bytes": size, **started_and_answered(results)}
    print(json.dumps(found, indent=1))


def started_and_answered(results: Path) -> dict[str, float]:
    """Seconds: the command to its address; the first table (read from files) and a later one; then
    the browser's."""
    begun = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", "explore", "--results", str(results), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    try:
        url = server.stdout.readline().strip()
        out = {"start_s": time.perf_counter() - begun, "first_table_s": fetch(url + "api/table")}
        out["command_to_data_s"] = time.perf_counter() - begun
        out["later_table_s"] = statistics.median(fetch(url + "api/table") for _ in range(ROUNDS))
        return {**out, **in_a_browser(url)}
    finally:
        server.terminate()
        server.wait(10)


def fetch(url: str) -> float:
    begun = time.perf_counter()
    with urllib.request.urlopen(url) as reply:
        reply.read()
    return time.perf_counter() - begun


def in_a_browser(url: str) -> dict[str, float | str]:
    try:
        from playwright import sync_api
    except ImportError:
        return {"browser": "playwright is not installed: pip install -e '.[browser]'"}
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium)
        except sync_api.Error as error:
            return {"browser": f"no Chromium starts here: {str(error).splitlines()[0]}"}
        opened = [open_page(browser, url) for _ in range(ROUNDS)]
        page = opened[-1][2]
        out = {
            "open_s": statistics.median(usable for usable, _, _ in opened),
            "open_with_figure_s": statistics.median(drawn for _, drawn, _ in opened),
            "search_s": statistics.median(
                timed(page, SEARCH, word) for word in ("h200", "fp8", "l40s", "h100", "")
            ),
            "sort_s": statistics.median(
                timed(page, SORT, way, drawn=False) for way in ("asc", "desc") * 3
            ),
            "figure_s": statistics.median(
                timed(page, FIGURE, name) for name in ("flops_per_s", "step_s") * 3
            ),
        }
        browser.close()
        return out


def open_page(browser, url: str) -> tuple[float, float, object]:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    begun = time.perf_counter()
    page.goto(url)
    page.wait_for_selector("html[data-ready=yes]")
    page.evaluate(PAINTED)
    usable = time.perf_counter() - begun
    page.wait_for_selector("html[data-drawn]")
    return usable, time.perf_counter() - begun, page


# From the change to the second frame after what it changes was drawn: by then it is on the screen.
PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
SEARCH = "word => { const t = new DataTable.Api('#points'); t.search(word).draw(); }"
SORT = "way => { new DataTable.Api('#points').order([7, way]).draw(); }"
FIGURE = (
    "name => { const f = document.getElementById('figure'); f.value = name; f.dispatchEvent(new"
    " Event('change')); }"
)


def timed(page, change: str, argument: str, drawn: bool = True) -> float:
    """Seconds; drawn: until the figure is new too."""
    return page.evaluate(
        f"""async argument => {{
        const begun = performance.now(), html = document.documentElement;
        const before = html.dataset.drawn;
        ({change})(argument);
        while ({str(drawn).lower()} && html.dataset.drawn === before)
            await new Promise(done => setTimeout(done, 1));
        await ({PAINTED})();
        return (performance.now() - begun) / 1000;
    }}""",
        argument,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000)
