"""Fills README.md, five pages of docs/, results/README.md and the two figures of docs/ from what is
measured, counted and predicted: no figure there is typed.

    python docs/fill_readme.py           Write them anew: after a result was added, and again
                                         before committing.
    python docs/fill_readme.py --check   Exit 1, with what differs, where they are stale (CI).
    python docs/fill_readme.py --plan    Also predict the suites for an H100 anew
                                         -> docs/h100_plan.json.  It counts, so it needs torch:
                                         after a suite, or the rules that predict its time, changed.

A block is `<!-- fill: NAME -->` ... `<!-- end -->`.  Results are the folders under results/ that
git tracks or would."""

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import fleet_page
import mesh_pages
import pencil_page
import waterfall_svg
from committed_results import Result, newest, results, results_page
from evidence_tables import held_out_block, scatter_block
from h100_plan import (
    HALF_HOUR,
    PLANNED_GPU,
    PLANNED_SUITES,
    plan_rows,
    point_rows,
    predict_plan,
    read_plan,
    table,
)

from bench.calibrate.evidence.forecast import forecast, usual_conditions
from bench.core.errors import UserError
from bench.core.load import load, load_point
from bench.core.specs.gpu import Gpu
from bench.core.units import MINUTES_AN_HOUR
from bench.explore.published import RUN_AS_PUBLISHED
from bench.report.documents import run_summary
from bench.report.forecasts import headline, published_here, resting_on
from bench.report.tables.planning import headline_lines

BLOCK = re.compile(r"(<!-- fill: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MESHES = Path("docs/meshes.svg")
ANSWERED = ("wan2.1-t2v-14b", "720p-81f")


def answer_block(found: list[Result]) -> str:
    """What `predict` prints of a well-known point."""
    model, workload = ANSWERED
    run = usual_conditions(model)
    made = forecast(load_point(model, workload, RUN_AS_PUBLISHED), PLANNED_GPU, run)
    lines = [headline(made), resting_on(made), *map(published_here, made.same_point)]
    command = f"$ ldt-bench predict {model} -w {workload} --gpu {PLANNED_GPU}"
    seconds, known = made.video_s, made.same_point[0].seconds
    return (
        _console(command, lines) + "\n"
        f"The interval is 90 %; it holds the {known:,.0f} s that others measured of this very"
        f" point ({seconds.low:,.0f} to {seconds.high:,.0f} s). Trust the held-out error: it comes"
        " from points the fit never saw. `--gpu all` compares every card, `--calibration RESULT`"
        " takes your own records instead.\n"
    )


def measurement_block(found: list[Result]) -> str:
    """The last lines of the newest run with a headline, as `run` prints them."""
    with_headline = [r for r in found if r.calibration and r.calibration.headline]
    if not with_headline:
        return "No result with a headline is in this repository yet.\n"
    result = with_headline[-1]
    directory = ROOT / result.path
    summary = run_summary(directory, directory / "report.md", result.records, result.calibration)
    of = result.records[-1].environment.device_name
    device = " --device cpu" if result.gpu == "cpu" else ""
    lines = [*headline_lines(summary), f"report: {result.path}/{result.report}"]
    return _console(f"$ ldt-bench run {result.suite}{device}", lines) + (
        f"\nThat is a toy on {of}. A rented H100 has suites of its own, half an hour in all, which"
        " nobody has run yet: [docs/h100.md](docs/h100.md).\n"
    )


def _console(command: str, lines: list[str]) -> str:
    """What a command prints, its long lines folded as a terminal would."""
    folded = [part for line in lines for part in textwrap.wrap(line, 110, subsequent_indent="  ")]
    return "\n".join(["```console", command, *folded, "```", ""])


def results_block(found: list[Result]) -> str:
    if not found:
        return "No result is in this repository yet, of any device.\n"
    rows = []
    answering = [r for r in newest(found) if r.calibration and r.calibration.headline]
    for r in answering or newest(found):
        own = r.calibration.headline if r.calibration else None
        fit = r.calibration.fit_for(None) if r.calibration else None
        errors = fit.leave_one_out if fit else None
        q = own.minutes_per_gpu_hour if own else None
        rows.append(
            (
                r.gpu,
                f"`{r.suite}`",
                r.started_utc[:10],
                f"{own.model} {own.workload}" if own else "–",
                f"{q.value:.3g} ({q.low:.3g} to {q.high:.3g})" if q else "–",
                own.provenance if own else "–",
                f"{errors.median:.1%}, worst {errors.worst:.1%} (n={errors.n})" if errors else "–",
                f"[{r.report}]({r.path}/{r.report})" if r.report else "–",
            )
        )
    text = table(
        [
            "GPU",
            "suite",
            "measured",
            "headline point",
            MINUTES_AN_HOUR,
            "provenance",
            "held-out error of the median step",
            "report",
        ],
        rows,
    )
    if not any(r.gpu.startswith("h100") for r in found):
        text += "\nNo H100 record is in this repository yet.\n"
    held = [
        line for r in found if r.suite.startswith("holdout") for line in holdout_lines(r, found)
    ]
    text += "".join(
        ["\nPredicted first, then measured (`ldt-bench calibrate --against`):\n\n", *held]
        if held
        else []
    )
    return (
        text + "\nAll of them, with the commands that made them:"
        " [results/README.md](results/README.md).\n"
    )


def holdout_lines(result: Result, found: list[Result]) -> list[str]:
    """What the newest earlier calibration of this device predicted of it: one line, or none without
    such a calibration."""
    earlier = [
        r
        for r in found
        if r.calibration
        and r.gpu == result.gpu
        and r.started_utc < result.started_utc
        and not r.suite.startswith("holdout")
    ]
    if not earlier:
        return []
    from bench.calibrate.holdout import hold_out, summary

    calibration = earlier[-1].calibration
    assert calibration is not None
    rows, _ = hold_out(calibration, ROOT / result.path)
    s = summary(rows)
    mfu = s["constant_mfu_baseline"]
    beside = f"; with one MFU for all {mfu['median']:.1%}, worst {mfu['worst']:.1%}" if mfu else ""
    return [
        f"- {result.gpu}: `{result.suite}` of {result.started_utc[:10]} by `{earlier[-1].suite}`:"
        f" error of the median stage {s['error']['median']:.1%}, worst {s['error']['worst']:.1%}"
        f" (n={s['error']['n']}){beside}\n"
    ]


PLAN_HEAD = ["", "points", "time", "range", "cost", "range", "provenance"]


def suites_block(found: list[Result]) -> str:
    """Every planned suite, of docs/h100.md."""
    plan, price = read_plan(ROOT), load(Gpu, PLANNED_GPU).price_usd_per_hour
    assert price is not None
    return (
        table(PLAN_HEAD, plan_rows(plan, PLANNED_SUITES))
        + f"\nAt ${price.low:.2f} to ${price.high:.2f} an hour ({price.date}). Basis:"
        f" {plan['basis']}.\n"
    )


def points_block(found: list[Result]) -> str:
    """Every point of the three commands."""
    plan = read_plan(ROOT)
    return "\n".join(
        f"`{plan['suites'][name]['command']}`\n\n"
        + table(["point", "stages", "predicted", "range"], point_rows(plan, name))
        for name in HALF_HOUR
    )


PAGES: dict[str, dict[str, Callable[[list[Result]], str]]] = {
    "README.md": {
        "waterfall": pencil_page.waterfall_block,
        "answer": answer_block,
        "measurement": measurement_block,
        "results": results_block,
    },
    "docs/pencil.md": {"chain": pencil_page.chain_block, "pencil": pencil_page.pencil_block},
    "docs/h100.md": {"suites": suites_block, "points": points_block},
    "docs/evidence.md": {"held-out": held_out_block, "scatter": scatter_block},
    "docs/parallel.md": {
        "meshes": mesh_pages.meshes_block,
        "mesh-errors": mesh_pages.mesh_errors_block,
    },
    "docs/fleet.md": {"article": fleet_page.article_block},
}
"""By page, what makes each of its blocks."""


def fill(page: Path, found: list[Result], blocks: dict[str, Callable[[list[Result]], str]]) -> str:
    """A page with its blocks filled.  Raises UserError for a block of no known name, and for one
    that is missing."""
    text = (ROOT / page).read_text()
    there = [m[2] for m in BLOCK.finditer(text)]
    if sorted(there) != sorted(blocks):
        raise UserError(
            f"{page}: blocks {', '.join(there) or 'none'}; wanted, once each: {', '.join(blocks)}"
        )
    return BLOCK.sub(lambda m: m[1] + blocks[m[2]](found) + m[4], text)


def pages() -> dict[Path, str]:
    """What each generated file should hold."""
    found = results(ROOT)
    return {
        **{Path(page): fill(Path(page), found, blocks) for page, blocks in PAGES.items()},
        Path("results/README.md"): results_page(found),
        MESHES: mesh_pages.draw(),
        pencil_page.PICTURE: waterfall_svg.draw(pencil_page.bars(found)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where a file is stale, and say how"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="predict the H100 suites anew first (needs torch, minutes)",
    )
    wanted = parser.parse_args()
    try:
        if wanted.plan:
            predict_plan(ROOT)
        stale = 0
        for path, text in pages().items():
            old = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
            if old == text:
                continue
            stale += 1
            if wanted.check:
                print(
                    "".join(
                        difflib.unified_diff(
                            old.splitlines(True),
                            text.splitlines(True),
                            f"{path} (stale)",
                            f"{path} (from results/)",
                            n=0,
                        )
                    )
                )
            else:
                (ROOT / path).parent.mkdir(exist_ok=True)
                (ROOT / path).write_text(text)
                print(f"written: {path}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if wanted.check and stale:
        print(f"{stale} stale: python docs/fill_readme.py", file=sys.stderr)
    return 1 if wanted.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
