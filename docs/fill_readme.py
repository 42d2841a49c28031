"""Fills README.md, four pages of docs/, results/README.md and the two figures of docs/ from what is
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
from collections.abc import Callable
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import fleet_page
import mesh_pages
import waterfall_svg
from committed_results import Result, newest, of_h100, results, results_page
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

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.core.units import MINUTES_AN_HOUR
from bench.count.closed import dit as closed_form
from bench.report.forecasts import resting_on
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.cross_model import cross_model
from bench.studies.pencil.published import published_chain
from bench.studies.pencil.waterfall import Bar, waterfall

BLOCK = re.compile(r"(<!-- fill: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PICTURE = Path("docs/waterfall.svg")
MESHES = Path("docs/meshes.svg")


def bars(found: list[Result]) -> list[Bar]:
    """The waterfall, down to the newest H100's calibration, or to what others' H100 runs reach."""
    h100 = of_h100(found)
    if h100 and h100.calibration:
        return waterfall(Assumptions(), h100.calibration.reference)
    return waterfall(Assumptions(), published=published_chain(PLANNED_GPU))


def waterfall_block(found: list[Result]) -> str:
    h100, drawn = of_h100(found), bars(found)
    basis = (
        f"Down to the card measured in [{h100.path.name}]({h100.path}/{h100.report})."
        if h100
        else (
            "No H100 record is in this repository yet, so the last two factors are what others'"
            f" H100 runs reach: {resting_on(published_chain(PLANNED_GPU).fast)}. 184,320 tokens are"
            " more than any published row has, so both are extrapolated"
            " ([docs/evidence.md](docs/evidence.md))."
        )
    )
    said = "; ".join(f"{b.factor} {b.value:.3g}" for b in drawn)
    return (
        f"![Minutes of video per H100-hour, factor by factor: {said}]({PICTURE})\n\n{basis}\n\n"
        + table(
            ["factor", "times", "minutes of video per H100-hour", "provenance"],
            [
                (b.factor, f"{b.multiplier:.3g}" if i else "", _minutes(b), b.provenance)
                for i, b in enumerate(drawn)
            ],
        )
    )


def _minutes(b: Bar) -> str:
    """With its interval, where it has one of its own."""
    if b.interval is None:
        return f"{b.value:.3g}"
    return f"{b.value:.3g} ({b.interval[0]:.3g} to {b.interval[1]:.3g})"


def results_block(found: list[Result]) -> str:
    if not found:
        return "No result is in this repository yet, of any device.\n"
    rows = []
    for r in newest(found):
        headline = r.calibration.headline if r.calibration else None
        fit = r.calibration.fit_for(None) if r.calibration else None
        errors = fit.leave_one_out if fit else None
        q = headline.minutes_per_gpu_hour if headline else None
        rows.append(
            (
                r.gpu,
                f"`{r.suite}`",
                r.started_utc[:10],
                f"{headline.model} {headline.workload}" if headline else "–",
                f"{q.value:.3g} ({q.low:.3g} to {q.high:.3g})" if q else "–",
                headline.provenance if headline else "–",
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
            "held-out error of a step",
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


def cost_block(found: list[Result]) -> str:
    plan, price = read_plan(ROOT), load(Gpu, PLANNED_GPU).price_usd_per_hour
    assert price is not None
    return (
        table(PLAN_HEAD, plan_rows(plan, HALF_HOUR))
        + f"\nAt ${price.low:.2f} to ${price.high:.2f} an hour ({price.date}). Basis:"
        f" {plan['basis']}.\n"
    )


def suites_block(found: list[Result]) -> str:
    """Every planned suite, of docs/h100.md."""
    plan = read_plan(ROOT)
    return table(PLAN_HEAD, plan_rows(plan, PLANNED_SUITES)) + f"\nBasis: {plan['basis']}.\n"


def points_block(found: list[Result]) -> str:
    """Every point of the three commands."""
    plan = read_plan(ROOT)
    return "\n".join(
        f"`{plan['suites'][name]['command']}`\n\n"
        + table(["point", "stages", "predicted", "range"], point_rows(plan, name))
        for name in HALF_HOUR
    )


def pencil_block(found: list[Result]) -> str:
    """What is counted of the chain, in words."""
    a, model, minute = Assumptions(), load(Model, MODEL), load(Workload, WORKLOAD)
    start, macs, _, counted, *_ = waterfall(a)
    sora, *_, by_token, _ = [row.as_dict() for row in cross_model(a, load(Gpu, PLANNED_GPU))]
    latents = model.latent_shape(minute)
    step, tokens = (
        closed_form.dit_forward(model.denoiser, latents, 1),
        prod(model.denoiser.grid(latents)),
    )
    hours = [row["datasheet"]["seconds"] / 3600 for row in (sora, by_token)]
    return "\n".join(
        [
            (
                f"- DiT's \"{a.dit_step / 1e9:.0f} GFLOP\" are multiply-accumulates, and an H100's"
                f" datasheet counts two FLOPs each: {start.value:.3g} minutes an hour become"
                f" {macs.value:.3g}."
            ),
            (
                f"- Attention over the {tokens:,} tokens of a minute is quadratic: a step takes"
                f" {sum(step.values()) / 1e15:.2f} PFLOP, {step['attention'] / 1e15:.2f} of them"
                f" attention (counted). At 100 % of the datasheet that makes {counted.value:.3g}"
                " minutes an hour."
            ),
            (
                "- FLOPs alone compare unlike things: made token by token (a VideoPoet-like 8 B),"
                f" the same minute takes {sora['flops'] / by_token['flops']:.0f} times fewer of"
                f" them, and at the H100's datasheet {hours[1]:.2g} hours where diffusion takes"
                f" {hours[0]:.2g}, since each token reads all the weights (counted work at claimed"
                " rates)."
            ),
            (
                "- What a card really reaches, the VAE, the text encoder and guidance come on top,"
                " and are measured."
            ),
            "",
        ]
    )


PAGES: dict[str, dict[str, Callable[[list[Result]], str]]] = {
    "README.md": {
        "waterfall": waterfall_block,
        "results": results_block,
        "cost": cost_block,
        "pencil": pencil_block,
    },
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
        PICTURE: waterfall_svg.draw(bars(found)),
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
