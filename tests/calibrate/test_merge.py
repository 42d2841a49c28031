"""Three results of one card fitted as one, with records of a real run cut in three."""

import json
import shutil

import pytest

from bench.calibrate.make import calibrate
from bench.core.errors import UserError
from bench.results.merge import merge
from bench.results.store import CALIBRATION, RECORDS, SUITE, point_records, read_records, read_suite


@pytest.fixture
def three(measured, tmp_path):
    """The measured result as three: ceilings and two points, two points, one that was left out and
    then measured."""
    source, _ = measured
    lines = (source / RECORDS).read_text().splitlines()
    skipped = json.loads(lines[1]) | {
        "outcome": "skipped_budget",
        "reason": "no time",
        "timings": {},
    }
    parts = [lines[:3], [json.dumps(skipped), *lines[3:5]], lines[5:]]
    suite = json.loads((source / SUITE).read_text())
    folders = []
    for i, part in enumerate(parts):
        folder = tmp_path / "cpu" / f"2026010{i + 1}T000000Z_part-{i}"
        folder.mkdir(parents=True)
        (folder / RECORDS).write_text("\n".join(part) + "\n")
        (folder / SUITE).write_text(
            json.dumps(suite | {"name": f"part-{i}", "ceilings": i == 0, "calibrate": i == 0})
        )
        folders.append(folder)
    return source, folders


def test_merged_they_fit_as_the_whole_does(three, tmp_path):
    source, folders = three
    merged = merge(folders, tmp_path / "merged")
    whole = {r.fingerprint: r.outcome for r in read_records(source)}
    assert {
        r.fingerprint: r.outcome for r in read_records(merged)
    } == whole  # the skip does not stand over a time
    assert len(point_records(read_records(merged))) == 5
    suite = read_suite(merged)
    assert (suite.name, suite.ceilings, suite.calibrate) == ("merged", True, True)
    assert suite.headline == read_suite(source).headline
    theirs, ours = calibrate(source), calibrate(merged)
    assert {n: p.value for n, p in ours.fit_for(None).parameters.items()} == pytest.approx(
        {n: p.value for n, p in theirs.fit_for(None).parameters.items()}, rel=1e-6
    )


def test_the_command_takes_several_and_reports_the_merged_one(three, tmp_path, here):
    _, folders = three
    for folder in folders[1:]:
        assert here("calibrate", str(folder))[0] == 2  # alone they have no ceilings
    code, out, err = here("calibrate", *map(str, folders), "--out", str(tmp_path / "all"), "--json")
    assert code == 0, err
    assert json.loads(out)["headline"]["model"] == "tiny"
    assert f"merged result: {tmp_path / 'all'}" in err
    assert (tmp_path / "all" / CALIBRATION).is_file()
    assert (tmp_path / "all" / "report.html").is_file()
    code, _, err = here("calibrate", *map(str, folders), "--out", str(tmp_path / "all"))
    assert (code, err.count("\n")) == (2, 1)
    assert "there already" in err


def test_what_cannot_be_merged_is_one_line(three, tmp_path, here):
    _, (first, second, _) = three
    other = tmp_path / "other"
    shutil.copytree(second, other)
    text = (other / RECORDS).read_text()
    name = json.loads(text.splitlines()[0])["environment"]["device_name"]
    (other / RECORDS).write_text(text.replace(json.dumps(name), '"Another card"'))
    with pytest.raises(
        UserError, match="measured on Another card, and .* one kind of card at a time"
    ):
        merge([first, other])
    assert here("calibrate", str(first), "--out", str(tmp_path / "x"))[0] == 2
