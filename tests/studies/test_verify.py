"""verify: what was measured agrees, and what was edited by hand does not."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bench.results.manifest import MANIFEST, write_manifest
from bench.results.records import PointRecord, Record
from bench.results.store import CALIBRATION, RECORDS
from bench.studies.verify.bounds import check_bounds, check_times
from bench.studies.verify.check import verify
from bench.studies.verify.counts import check_counts
from bench.studies.verify.inside import check_inside
from bench.studies.verify.timings import check_samples, check_timings
from support.paths import ROOT
from support.records import point_record

ADAPTER: TypeAdapter = TypeAdapter(Record)


def wrong(directory: Path) -> set[str]:
    """Checks that found something."""
    return {f.check for f in verify(directory) if f.verdict == "differs"}


@pytest.fixture
def copied(measured, tmp_path) -> Path:
    """A result as this code made it, to be edited."""
    directory = tmp_path / "copy"
    shutil.copytree(measured[0], directory)
    return directory


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "results" / "cpu").glob("2*")))
def test_a_committed_result_agrees(name, here):
    code, out, _ = here("verify", str(ROOT / "results" / "cpu" / name), "--json")
    said = json.loads(out)
    assert (code, said["agrees"]) == (0, True), [f for f in said["findings"] if f["said"]]
    hashed = next(f for f in said["findings"] if f["check"] == "hashes")
    assert hashed["verdict"] == "agrees"


def test_what_a_run_wrote_agrees(copied):
    found = verify(copied)
    assert [f for f in found if f.verdict == "differs"] == []
    agreed = {f.check for f in found if f.verdict == "agrees"}
    assert agreed >= {"schema", "hashes", "statistics of the samples", "counts", "calibration"}


def edited(directory: Path, change) -> None:
    lines = [json.loads(line) for line in (directory / RECORDS).read_text().splitlines()]
    change(lines)
    (directory / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def point_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return next(line for line in lines if line["kind"] == "point" and line["timings"])


def faster(lines) -> None:
    point_of(lines)["timings"]["denoise_step"]["median_s"] /= 2


def all_samples_faster(lines) -> None:
    """So that every statistic follows from them."""
    timing = point_of(lines)["timings"]["denoise_step"]
    for name, value in timing.items():
        if name.endswith("_s") and name != "compile_s":
            halved = [s / 2 for s in value] if isinstance(value, list) else value / 2
            timing[name] = halved


def doubled_work(lines) -> None:
    point_of(lines)["counts"]["denoise_step"]["linear_flops"] *= 2


def another_model(lines) -> None:
    point_of(lines)["model"] = "sora-20b"


def earlier(lines) -> None:
    lines[-1]["started_utc"] = "2020-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("change", "checks"),
    [
        (faster, {"statistics of the samples"}),
        (all_samples_faster, {"samples as they came"}),
        (doubled_work, {"counts", "sums within a record"}),
        (another_model, {"what was measured"}),
        (earlier, {"times of day"}),
    ],
)
def test_an_edit_is_caught_without_the_manifest_and_with_it(copied, here, change, checks):
    edited(copied, change)
    assert "hashes" in wrong(copied)
    (copied / MANIFEST).unlink()
    found = wrong(copied)
    assert checks <= found
    assert "hashes" not in found
    code, out, _ = here("verify", str(copied))
    assert code == 1
    assert "differs" in out


@pytest.mark.parametrize("began", ["", "yesterday", "2026-01-01T00:00:00"])
def test_a_start_that_is_no_time_of_day_in_utc_is_said(began):
    """The last is of an unknown zone, and cannot be compared with one that is known."""
    good = point_record().model_copy(update={"wall_s": 100.0})
    wrong = good.model_copy(update={"started_utc": began})
    (found,) = check_times([good, wrong, good])
    assert (found.verdict, found.where) == ("differs", good.label)
    assert found.said == f"began {began!r}, which is no time of day in UTC"


def test_a_calibration_that_its_records_do_not_give_is_caught(copied):
    stored = json.loads((copied / CALIBRATION).read_text())
    stored["headline"]["minutes_per_gpu_hour"]["value"] *= 1.05
    stored["headline"]["minutes_per_gpu_hour"]["high"] *= 1.05
    (copied / CALIBRATION).write_text(json.dumps(stored))
    write_manifest(copied)  # whoever edits may write the hashes again
    assert wrong(copied) == {"calibration"}


def leaves(data: Any, path: tuple = ()) -> Iterator[tuple[tuple, float]]:
    """Every number with its path."""
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in items:
            yield from leaves(value, (*path, key))
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield path, data


def with_value(line: dict[str, Any], path: tuple, value: float) -> dict[str, Any]:
    changed = copy.deepcopy(line)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def caught(directory: Path, line: dict[str, Any]) -> bool:
    """By what follows from the record itself, without any hash."""
    try:
        record = ADAPTER.validate_python(line)
    except ValidationError:
        return True
    found = [*check_timings([record]), *check_samples(directory, [record])]
    found += [*check_inside([record]), *check_times([record]), *check_bounds([record])]
    found += check_counts([record]) if isinstance(record, PointRecord) else []
    return any(finding.verdict == "differs" for finding in found)


def test_most_numbers_follow_from_others(copied):
    """One number of each field, doubled, of the ceilings and of a point.  The hashes catch all."""
    lines = [json.loads(line) for line in (copied / RECORDS).read_text().splitlines()]
    kept, every = [], 0
    for line in (lines[0], point_of(lines)):
        fields = {
            tuple("*" if isinstance(k, int) else k for k in p): (p, v) for p, v in leaves(line)
        }
        for path, value in fields.values():
            every += 1
            if not caught(copied, with_value(line, path, 2 * value + 1)):
                kept.append(".".join(map(str, path)))
    assert every > 150
    # The rest are readings of their own: warm-up, the sentinel, memory, telemetry, the machine.
    assert len(kept) / every < 0.25, kept
