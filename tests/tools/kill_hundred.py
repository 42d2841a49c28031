"""Kill a suite's worker, its parent or both at random moments and resume it, over and over: nothing
measured is lost, nothing repeated, no process is left.  And stop the worker for 5 s in the midst of
a sample: the result says so.

    python tests/tools/kill_hundred.py [--kill worker|parent|both|stop|all] [--kills 100]
        [--stops 10] [--seed 0]

The last line is JSON; the exit code is 1 where a promise was not kept.  `test_resume.py` does a few
of these; this does the hundred.  Linux alone: it reads /proc.
"""

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from killed_run import POINTS, Broken, Kept, Life, directory_in, send

KILLS = ("worker", "parent", "both")
OF_A_RESULT = 9
"""Kills at most: then it comes to its end, and another begins."""
STOPS_OF_A_RESULT = 4
STOPPED_S = 5.0


@dataclass
class Tally:
    """Of one mode."""

    sent: int = 0
    """Signals that reached their process."""
    results: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    left: int = 0
    gone_after_s: float = 0.0
    """At most, until no process of a killed run was there."""
    in_samples: int = 0
    """Of the stops, those in the midst of a sample: the others hit a warm-up or nothing timed."""
    stalled: int = 0
    """Of those, the ones that the table and the line beside the headline call stalled samples."""
    unstable: int = 0
    """And those that moved the median of a few samples, which the table calls unstable."""

    @property
    def told(self) -> int:
        return self.stalled + self.unstable

    @property
    def good(self) -> bool:
        return not sum(self.faults.values()) and not self.left and self.told == self.in_samples


def kill_worker(life: Life, rng: random.Random, wanted: int) -> int:
    """Again and again while the run goes on, each time in the midst of measuring -> kills."""
    killed = 0
    while killed < wanted and life.wait_for_samples():
        if life.sleep(rng.uniform(0.0, 2.5)) and send(worker := life.worker(), signal.SIGKILL):
            killed += 1
            life.wait_for_worker(other_than=worker)
    return killed


def kill_parent(life: Life, rng: random.Random, wanted: int) -> int:
    """Once, from the worker's first moment on."""
    if not (life.wait_for_worker() and life.sleep(rng.uniform(0.0, 15.0))):
        return 0
    return int(send(life.process.pid, signal.SIGKILL))


def kill_both(life: Life, rng: random.Random, wanted: int) -> int:
    """Once, either first."""
    if not (life.wait_for_worker() and life.sleep(rng.uniform(0.0, 15.0))):
        return 0
    pair = [life.worker(), life.process.pid]
    rng.shuffle(pair)
    return int(all([send(pid, signal.SIGKILL) for pid in pair]))


HOW: dict[str, Callable[[Life, random.Random, int], int]] = {
    "worker": kill_worker,
    "parent": kill_parent,
    "both": kill_both,
}


def one_result(mode: str, wanted: int, rng: random.Random, root: Path, tally: Tally) -> None:
    """One result from its start to its end, killed on the way at most `wanted` times."""
    kept, killed = Kept(), 0
    while True:
        life = Life(root)
        now = HOW[mode](life, rng, wanted - killed) if killed < wanted else 0
        code, killed = life.end(), killed + now
        left, gone_after_s = life.left_behind()
        tally.left += left
        tally.gone_after_s = max(tally.gone_after_s, gone_after_s)
        kept.look(directory_in(root))
        by_signal = now and mode != "worker"
        if not by_signal and code not in ((0, 1) if now else (0,)):
            raise Broken(f"exit code {code}: {life.said()}")
        if not now and not by_signal:
            break
    if len(set(kept.finished)) != POINTS:
        raise Broken(f"{len(set(kept.finished))} of {POINTS} points at the end")
    tally.sent += killed
    tally.results += 1
    tally.faults += kept.faults


def one_stopped(wanted: int, rng: random.Random, root: Path, tally: Tally) -> None:
    """One result whose worker is stopped for 5 s at most `wanted` times, and what it says of
    that."""
    life, stops = Life(root), 0
    while stops < wanted and life.wait_for_samples():
        if life.sleep(rng.uniform(0.0, 3.0)) and send(worker := life.worker(), signal.SIGSTOP):
            time.sleep(STOPPED_S)
            send(worker, signal.SIGCONT)
            stops += 1
    code, kept = life.end(), Kept()
    if code:
        raise Broken(f"exit code {code}: {life.said()}")
    tally.left += life.left_behind()[0]
    directory = directory_in(root)
    kept.look(directory)
    tally.sent, tally.results = tally.sent + stops, tally.results + 1
    tally.faults += kept.faults
    summary = json.loads((root / "stdout").read_text().splitlines()[-1])
    report, beside = (directory / "report.md").read_text(), summary["unsteady"] or ""
    for (label, stage), taken in kept.samples().items():
        inside = sum(seconds >= STOPPED_S for seconds in taken)
        how = told(label, stage, inside, report)
        tally.in_samples += inside
        tally.unstable += inside if how == "unstable" else 0
        tally.stalled += inside if how == "stalled" and "stalled, for 5" in beside else 0


def told(label: str, stage: str, inside: int, report: str) -> str | None:
    """How the report's table tells of stops in a stage: by samples called stalled, or where they
    are half of a few, by a median called unstable."""
    rows = [line for line in report.splitlines() if line.startswith(f"| {label} | ")]
    own = next(line for line in rows if line.startswith(f"| {label} | {stage} | "))
    stalled = re.search(r"(\d+) of \d+ samples stalled, for 5", own)
    if stalled and int(stalled[1]) >= inside:
        return "stalled"
    return "unstable" if any(f"{stage}: the median of" in line for line in rows) else None


def rounds(mode: str, wanted: int, rng: random.Random) -> Tally:
    """Results until so many signals were sent; for stops, until so many were in samples."""
    tally = Tally()
    while (done := tally.in_samples if mode == "stop" else tally.sent) < wanted:
        with tempfile.TemporaryDirectory() as root:
            if mode == "stop":
                one_stopped(min(wanted - done, STOPS_OF_A_RESULT), rng, Path(root), tally)
            else:
                one_result(mode, min(wanted - done, OF_A_RESULT), rng, Path(root), tally)
        print(f"{mode}: {tally.sent} sent, {tally.results} results whole", file=sys.stderr)
    return tally


COLUMNS = ("mode", "sent", "results", "lost", "left out", "repeated", "invalid", "left", "seen")


def table(tallies: dict[str, Tally]) -> str:
    """Kills by mode, and what became of what was measured."""
    lines = ["".join(f"{name:>10}" for name in COLUMNS)]
    for mode, t in tallies.items():
        faults = [t.faults[name] for name in ("lost", "left out", "repeated", "invalid")]
        seen = f"{t.told} of {t.in_samples}" if mode == "stop" else "-"
        cells = (mode, t.sent, t.results, *faults, t.left, seen)
        lines.append("".join(f"{cell!s:>10}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kill", choices=[*KILLS, "stop", "all"], default="all")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    modes = KILLS if args.kill == "all" else tuple({args.kill} - {"stop"})
    wanted = {m: len(range(i, args.kills, len(modes))) for i, m in enumerate(modes)}
    if args.kill in ("stop", "all"):
        wanted["stop"] = args.stops
    tallies = {
        mode: rounds(mode, n, random.Random(f"{args.seed} {mode}")) for mode, n in wanted.items()
    }
    print(table(tallies))
    document = {
        mode: {
            "sent": t.sent,
            "results": t.results,
            **{name: t.faults[name] for name in ("lost", "left out", "repeated", "invalid")},
            "processes_left": t.left,
            "gone_after_s": round(t.gone_after_s, 2),
            "stops_in_samples": t.in_samples,
            "called_stalled": t.stalled,
            "called_unstable": t.unstable,
        }
        for mode, t in tallies.items()
    }
    print(json.dumps(document))
    sys.exit(0 if all(t.good for t in tallies.values()) else 1)


if __name__ == "__main__":
    main()
