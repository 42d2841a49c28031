"""Stored points of a newer version are read without their new fields; broken ones are left out."""

import copy
import json

import pytest

from bench.core.errors import UserError
from bench.core.specs.point import Point
from bench.results.readable import known_part
from bench.results.store import RECORDS, read_records
from support.cli import cli
from support.records import point_record


@pytest.fixture
def stored(tmp_path):
    """Three records on disk; a function that edits the second."""
    one = point_record()
    records = [
        one.model_copy(update={"fingerprint": name}).model_dump(mode="json") for name in "pqr"
    ]

    def write(edit):
        changed = copy.deepcopy(records)
        edit(changed[1])
        lines = "".join(json.dumps(r) + "\n" for r in changed)
        (tmp_path / RECORDS).write_text(lines)
        return tmp_path

    return write


def test_a_newer_field_is_ignored_and_said(stored):
    def newer(record):
        record["point"]["model"]["denoiser"]["a_later_field"] = 1
        record["point"]["workload"]["another"] = "x"

    directory = stored(newer)
    with pytest.warns(UserWarning, match="denoiser.a_later_field") as said:
        records = read_records(directory)
    assert len(records) == 3
    assert any("workload.another" in str(w.message) for w in said)
    assert all(Point.model_validate(r.point) for r in records)


def test_a_broken_point_leaves_out_its_record_alone(stored):
    directory = stored(lambda record: record["point"]["model"]["denoiser"].update(width=-1))
    with pytest.warns(UserWarning, match="left out: .*its point is damaged"):
        assert len(read_records(directory)) == 2


def test_a_baseline_that_is_broken_costs_the_comparison(stored):
    def broken(record):
        base = copy.deepcopy(record["point"])
        base["recipe"]["dtype"] = "fp7"
        record["against"] = {
            "baseline": "eager",
            "point": base,
            "in_turns": True,
            "reason": None,
            "timings": {},
            "divergence": None,
            "divergence_missing": "x",
        }

    directory = stored(broken)
    with pytest.warns(UserWarning, match="baseline is damaged"):
        records = read_records(directory)
    assert len(records) == 3
    assert records[1].against is None


def test_a_point_as_it_is_is_not_copied():
    point = point_record().point
    assert known_part(point, "x") is point


def test_none_that_can_be_read_is_one_line(tmp_path):
    record = point_record().model_dump(mode="json")
    record["point"]["model"]["denoiser"] = {"nothing": 1}
    (tmp_path / RECORDS).write_text(json.dumps(record) + "\n")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(UserError, match="none of its records"),
    ):
        read_records(tmp_path)


@pytest.mark.slow
def test_commands_live_with_a_newer_point(stored):
    """They crashed once: holdout, report, calibrate."""
    directory = stored(
        lambda record: record["point"]["model"]["denoiser"].update(a_later_field=[1, 2])
    )
    for command in ("report", "calibrate", "verify", "compare"):
        both = (str(directory),) * (2 if command == "compare" else 1)
        assert "Traceback" not in cli(command, *both).stderr, command
