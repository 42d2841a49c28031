"""Writes configs/counts/presets.json.gz: the counts of every point of every suite, which travel
with the package.

    python docs/make_counts.py                Count what the file lacks: after a change of the
                                              models or of the counting all, some minutes.
    python docs/make_counts.py --stamp        After a change that alters no count: count what
                                              --check does, and keep the rest where that is equal.
    python docs/make_counts.py --check        Exit 1 where the file is of other code, lacks a
                                              point, or a count differs: of the quick points and,
                                              in turns by the day, some others; half a minute.
    python docs/make_counts.py --check --all  Count all of them again.
"""

import datetime
import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.core.load import load, names, suite_points
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite
from bench.count.shipped import (
    FILE,
    counting_code,
    diffusers_version,
    shipped_document,
)
from bench.results.counts import StageCount

CHECK_S = 25.0  # to count again in, by what each took when the file was made
QUICK_S = 0.3
BYTES_AGREE = 0.05
"""Versions of PyTorch take norms and copies apart in other operators; products never differ."""
EXACT = ("linear_flops", "attention_flops", "conv_flops", "other_flops")
NEAR = ("bytes_modelled_min", "bytes_modelled_max", "bytes_elementwise", "kernels")


def points() -> dict[str, Point]:
    """Every point of the suites once, by subject, with all stages that any suite runs of it."""
    found: dict[str, Point] = {}
    for name in names("suites"):
        for point in (p.on_one_rank for p in suite_points(load(Suite, name))):
            before = found.get(point.subject)
            stages = dict.fromkeys((*(before.stages if before else ()), *point.stages))
            found[point.subject] = point.model_copy(update={"stages": tuple(stages)})
    return found


def count(point: Point) -> dict[str, Any]:
    """Tokens, parameters, stages and the seconds that counting took."""
    from bench.measure.points.build import count_stages

    started = time.perf_counter()
    counted = count_stages(point)
    return {
        "tokens": counted.tokens,
        "params": counted.params,
        "stages": {stage: c.model_dump(mode="json") for stage, c in counted.stages.items()},
        "seconds": round(time.perf_counter() - started, 2),
    }


def make(stamp: bool) -> None:
    """Count what the file lacks, all where it is of other code, and write it after each: cut off,
    it goes on where it was.  stamp: what is there holds for this code too."""
    document, wanted = shipped_document(), points()
    same = document["code"] == counting_code() and document["diffusers"] == diffusers_version()
    same = same or stamp
    counts = {
        subject: whole(document, subject)
        for subject in document["counts"]
        if same and subject in wanted
    }
    for subject, point in wanted.items():
        if subject not in counts or set(point.stages) - set(counts[subject]["stages"]):
            counts[subject] = count(point)
            print(f"{point.label}: {counts[subject]['seconds']:.1f} s", flush=True)
            write(counts)
    print(f"written: configs/{FILE}, {len(counts)} points, {write(counts) / 1e3:.0f} kB")


def whole(document: dict[str, Any], subject: str) -> dict[str, Any]:
    """A point of the file with its stages in place."""
    entry = document["counts"][subject]
    return {
        **entry,
        "stages": {stage: document["stages"][index] for stage, index in entry["stages"].items()},
    }


def write(counts: dict[str, dict[str, Any]]) -> int:
    """The file, stages that are equal kept once -> its bytes."""
    kept: dict[str, int] = {}
    short = {}
    for subject, counted in sorted(counts.items()):
        texts = {
            stage: json.dumps(c, separators=(",", ":")) for stage, c in counted["stages"].items()
        }
        short[subject] = {
            **counted,
            "stages": {stage: kept.setdefault(text, len(kept)) for stage, text in texts.items()},
        }
    document = {
        "code": counting_code(),
        "diffusers": diffusers_version(),
        "counts": short,
        "stages": [json.loads(text) for text in kept],
    }
    path = ROOT / "configs" / FILE
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0))
    part.replace(path)  # cut off, the old one is whole
    return path.stat().st_size


def faults(all_of_them: bool, day: int) -> list[str]:
    """What is wrong with the file that is there."""
    document, wanted = shipped_document(), points()
    counts = document["counts"]
    found = []
    if document["code"] != counting_code():
        found.append("it is of other counting code or other models, so that no run uses it")
    found += [
        f"{point.label}: not in it" for subject, point in wanted.items() if subject not in counts
    ]
    found += [f"{subject}: of no suite" for subject in counts if subject not in wanted]
    return found + changed(all_of_them, day)


def changed(all_of_them: bool, day: int) -> list[str]:
    """Counts of the file that are others now."""
    document, wanted = shipped_document(), points()
    found = []
    for subject in chosen(document["counts"], all_of_them, day):
        if subject in wanted:
            found += differences(wanted[subject], whole(document, subject), count(wanted[subject]))
    return found


def chosen(counts: dict[str, Any], all_of_them: bool, day: int) -> list[str]:
    """Which to count again: of the quick ones one in seven, then at least one of the others and as
    many as the time allows, from a place that moves on by the day."""
    if all_of_them:
        return list(counts)
    quick = [subject for subject, c in counts.items() if c["seconds"] <= QUICK_S]
    rest = [subject for subject in counts if subject not in quick]
    start = day % len(rest) if rest else 0
    taken = quick[day % 7 :: 7]
    left = CHECK_S - sum(counts[subject]["seconds"] for subject in taken)
    for i, subject in enumerate([*rest[start:], *rest[:start]]):
        left -= counts[subject]["seconds"]
        if left < 0 and i > 0:
            break
        taken.append(subject)
    return taken


def differences(point: Point, shipped: dict[str, Any], counted: dict[str, Any]) -> list[str]:
    """In what two counts of a point differ: products, parameters and tokens to the last one, bytes
    within a few per cent."""
    found = [
        f"{point.label}: {name} {shipped[name]}, counted {counted[name]}"
        for name in ("tokens", "params")
        if shipped[name] != counted[name]
    ]
    if shipped["stages"].keys() != counted["stages"].keys():
        return [
            *found,
            f"{point.label}: stages {list(shipped['stages'])}, counted {list(counted['stages'])}",
        ]
    for stage, now in counted["stages"].items():
        then = shipped["stages"][stage]
        found += [
            f"{point.label}, {stage}: {name} {then[name]}, counted {now[name]}"
            for name in EXACT
            if then[name] != now[name]
        ]
        found += [
            f"{point.label}, {stage}: {name} {then[name]}, counted {now[name]}"
            for name in NEAR
            if abs(then[name] - now[name]) > BYTES_AGREE * now[name]
        ]
        if _products(then) != _products(now):
            found.append(f"{point.label}, {stage}: its products are of other sizes")
    return found


def _products(stage: dict[str, Any]) -> dict[tuple, int]:
    rows = StageCount.model_validate(stage).operators.rows()
    return {
        (kind, m, n, k, flops): calls for (kind, m, n, k, flops, *_), calls in rows.items() if flops
    }


def main() -> None:
    day = datetime.date.today().toordinal()
    if "--stamp" in sys.argv:
        found = changed(False, day)
        if not found:
            make(stamp=True)
            return
    elif "--check" in sys.argv:
        found = faults("--all" in sys.argv, day)
    else:
        make(stamp=False)
        return
    for line in found[:20]:
        print(f"configs/{FILE}: {line}")
    if found:
        sys.exit(f"{len(found)} faults: python docs/make_counts.py")
    print(f"configs/{FILE}: as it would be counted now")


if __name__ == "__main__":
    main()
