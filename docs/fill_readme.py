"""Fills README.md, docs/h100.md, results/README.md and docs/waterfall.svg from what is measured and
counted: no figure there is typed.

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
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import waterfall_svg

from bench.calibrate.calibration import Calibration, read_calibration
from bench.core.errors import UserError
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.core.units import seconds
from bench.count.closed import dit as closed_form
from bench.results.records import CeilingsRecord, PointRecord
from bench.results.store import (
    CALIBRATION,
    RECORDS,
    point_records,
    read_records,
    read_suite,
)
from bench.studies.pencil.analytic import Assumptions
from bench.studies.pencil.cross_model import cross_model
from bench.studies.pencil.waterfall import MODEL, WORKLOAD, Bar, waterfall

BLOCK = re.compile(r"(<!-- fill: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PLAN, PICTURE = Path("docs/h100_plan.json"), Path("docs/waterfall.svg")
PAGE_H100 = Path("docs/h100.md")
HALF_HOUR = ("h100-health", "h100-rates", "h100-anchor")
PLANNED_SUITES, PLANNED_GPU = (*HALF_HOUR, "h100", "ablations"), "h100-sxm"


@dataclass(frozen=True)
class Result:
    """One result directory."""

    path: Path
    """Relative to the repository."""
    suite: str
    records: list[PointRecord | CeilingsRecord]
    calibration: Calibration | None

    @property
    def gpu(self) -> str:
        return self.records[-1].environment.gpu

    @property
    def started_utc(self) -> str:
        return min(r.started_utc for r in self.records)

    @property
    def command(self) -> str:
        """How to measure this again."""
        suite = self.suite if self.suite in names("suites") else f"{self.path}/suite.json"
        return f"ldt-bench run {suite} --device {self.records[-1].environment.device}"

    @property
    def report(self) -> str | None:
        return next(
            (name for name in ("report.html", "report.md") if (ROOT / self.path / name).is_file()),
            None,
        )


def results(root: Path) -> list[Result]:
    """Every result under results/, oldest first.  Raises UserError for one that cannot be read."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "results"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    files = (
        listed.stdout.split("\n")
        if listed.returncode == 0
        else [str(p.relative_to(root)) for p in (root / "results").rglob(RECORDS)]
    )  # a copy without its history
    folders = sorted(
        {Path(f).parent for f in files if Path(f).name == RECORDS and (root / f).is_file()}
    )
    found = [
        Result(
            path=folder,
            suite=read_suite(root / folder).name,
            records=read_records(root / folder),
            calibration=(
                read_calibration(root / folder) if (root / folder / CALIBRATION).is_file() else None
            ),
        )
        for folder in folders
    ]
    return sorted(found, key=lambda r: (r.started_utc, str(r.path)))


def newest(found: list[Result]) -> list[Result]:
    """The newest result of each GPU and suite, by GPU."""
    return sorted({(r.gpu, r.suite): r for r in found}.values(), key=lambda r: (r.gpu, r.suite))


def of_h100(found: list[Result]) -> Result | None:
    """The newest with the waterfall's end on an H100: no other card's figure stands for one."""
    return next(
        (
            r
            for r in reversed(found)
            if r.gpu.startswith("h100") and r.calibration and r.calibration.reference
        ),
        None,
    )


def bars(found: list[Result]) -> list[Bar]:
    """The waterfall, down to the newest H100's calibration, or to 100 % of the datasheet."""
    h100 = of_h100(found)
    return waterfall(
        Assumptions(), h100.calibration.reference if h100 and h100.calibration else None
    )


def waterfall_block(found: list[Result]) -> str:
    h100, drawn = of_h100(found), bars(found)
    basis = (
        f"Down to the card measured in [{h100.path.name}]({h100.path}/{h100.report})."
        if h100
        else (
            "No H100 record is in this repository yet, so the waterfall ends at 100 % of the"
            " datasheet and no calibrated H100 figure is stated."
        )
    )
    said = "; ".join(f"{b.factor} {b.value:.3g}" for b in drawn)
    return (
        f"![Minutes of video per H100-hour, factor by factor: {said}]({PICTURE})\n\n{basis}\n\n"
        + table(
            ["factor", "times", "minutes of video per H100-hour", "provenance"],
            [
                (b.factor, f"{b.multiplier:.3g}" if i else "", f"{b.value:.3g}", b.provenance)
                for i, b in enumerate(drawn)
            ],
        )
    )


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
            "minutes of video per GPU-hour",
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
        ["\nPredicted first, then measured (`ldt-bench holdout`):\n\n", *held] if held else []
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


def read_plan() -> dict:
    """docs/h100_plan.json.  Raises UserError where a suite has changed since."""
    plan = json.loads((ROOT / PLAN).read_text())
    stale = [
        name
        for name in PLANNED_SUITES
        if plan["suites"].get(name, {}).get("suite_sha256") != suite_digest(name)
    ]
    if stale:
        raise UserError(
            f"{PLAN} is of another version of {', '.join(stale)}: python docs/fill_readme.py --plan"
        )
    return plan


def plan_rows(plan: dict, wanted: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A line for each suite: its name, points, time, cost, provenance."""
    return [
        (
            f"`run {name}`",
            str(suite["points"]),
            *spanned(suite["total"], seconds),
            *spanned(suite["cost_usd"], dollars),
            suite["provenance"],
        )
        for name in wanted
        for suite in [plan["suites"][name]]
    ]


def spanned(quantity: dict, shown: Callable[[float], str]) -> tuple[str, str]:
    return shown(quantity["value"]), f"{shown(quantity['low'])} to {shown(quantity['high'])}"


def dollars(value: float) -> str:
    return f"${value:.2f}"


PLAN_HEAD = ["", "points", "time", "range", "cost", "range", "provenance"]


def cost_block(found: list[Result]) -> str:
    plan, price = read_plan(), load(Gpu, PLANNED_GPU).price_usd_per_hour
    assert price is not None
    return (
        table(PLAN_HEAD, plan_rows(plan, HALF_HOUR))
        + f"\nAt ${price.low:.2f} to ${price.high:.2f} an hour ({price.date}). Basis:"
        f" {plan['basis']}.\n"
    )


def suites_block(found: list[Result]) -> str:
    """Every planned suite, of docs/h100.md."""
    plan = read_plan()
    return table(PLAN_HEAD, plan_rows(plan, PLANNED_SUITES)) + f"\nBasis: {plan['basis']}.\n"


def points_block(found: list[Result]) -> str:
    """Every point of the three commands."""
    plan = read_plan()
    return "\n".join(
        f"`{plan['suites'][name]['command']}`\n\n"
        + table(
            ["point", "stages", "predicted", "range"],
            [
                (
                    row["point"],
                    ", ".join(row["stages"]),
                    *spanned(
                        {"value": row["predicted_s"], "low": row["low_s"], "high": row["high_s"]},
                        seconds,
                    ),
                )
                for row in plan["suites"][name]["rows"]
            ],
        )
        for name in HALF_HOUR
    )


def pencil_block(found: list[Result]) -> str:
    """What is counted of the chain, in words."""
    a, model, minute = Assumptions(), load(Model, MODEL), load(Workload, WORKLOAD)
    start, macs, *_, counted, _ = waterfall(a)
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


def table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    cells = [head, ["---"] * len(head), *([c.replace("|", "\\|") for c in row] for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def results_page(found: list[Result]) -> str:
    """results/README.md: every result with the command that made it."""
    rows = []
    for r in found:
        points = point_records(r.records)
        ok, environment = sum(p.outcome == "ok" for p in points), r.records[-1].environment
        rows.append(
            (
                f"[{r.path.name}]({Path(*r.path.parts[1:])})",
                r.gpu,
                environment.device_name,
                f"`{r.command}`",
                r.started_utc,
                f"{ok} of {len(points)}",
                environment.torch,
                environment.code_version[:12],
            )
        )
    listed = table(
        [
            "result",
            "GPU",
            "device",
            "command that made it",
            "started (UTC)",
            "points ok",
            "torch",
            "code",
        ],
        rows,
    )
    return (
        "# Results\n\nWritten by `python docs/fill_readme.py`. Each folder holds the records"
        " (measured), what was fitted to them, and a report;\n`docs/schema.md` explains the files,"
        " `ldt-bench report DIRECTORY` draws the report again.\n\n"
        + (listed if found else "No result is in this repository yet.\n")
    )


BLOCKS: dict[str, Callable[[list[Result]], str]] = {
    "waterfall": waterfall_block,
    "results": results_block,
    "cost": cost_block,
    "pencil": pencil_block,
}


H100_BLOCKS: dict[str, Callable[[list[Result]], str]] = {
    "suites": suites_block,
    "points": points_block,
}


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
        Path("README.md"): fill(Path("README.md"), found, BLOCKS),
        PAGE_H100: fill(PAGE_H100, found, H100_BLOCKS),
        Path("results/README.md"): results_page(found),
        PICTURE: waterfall_svg.draw(bars(found)),
    }


def suite_digest(name: str) -> str:
    return sha256((ROOT / "configs/suites" / f"{name}.yaml").read_bytes()).hexdigest()[:16]


def predict_plan() -> None:
    """docs/h100_plan.json anew: what `run SUITE --dry-run` says of a rented card, without a record
    of one."""
    documents = {}
    for name in PLANNED_SUITES:
        command = [
            "run",
            name,
            "--dry-run",
            "--gpu",
            PLANNED_GPU,
            "--out",
            "/nonexistent",
            "--json",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "bench.cli", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        documents[name] = json.loads(done.stdout)
    write_plan(documents)


def write_plan(documents: dict[str, dict]) -> None:
    """Keep what the pages show of each suite's dry run."""
    suites = {}
    for name, document in documents.items():
        provenance = {row["provenance"] for row in document["points"]}
        suites[name] = {
            "command": f"ldt-bench run {name} --dry-run --gpu {PLANNED_GPU}",
            "suite_sha256": suite_digest(name),
            "points": sum(row["point"] != "ceilings" for row in document["points"]),
            "provenance": "/".join(sorted(map(str, provenance))),
            "total": document["total"],
            "cost_usd": document["cost_usd"],
            "rows": [
                {key: row[key] for key in ("point", "stages", "predicted_s", "low_s", "high_s")}
                for row in document["points"]
            ],
        }
    basis = next(iter(documents.values()))["basis"]
    (ROOT / PLAN).write_text(
        json.dumps({"gpu": PLANNED_GPU, "basis": basis, "suites": suites}, indent=1) + "\n"
    )


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
            predict_plan()
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
