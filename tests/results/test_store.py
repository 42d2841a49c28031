"""What is on disk survives: torn lines, damage, two writers, no space."""

import errno
import json
import os
from pathlib import Path

import pytest

from bench.calibrate.read import read_calibration
from bench.core.errors import EnvironmentFault, UserError
from bench.results.store import (
    CALIBRATION,
    RECORDS,
    SAMPLES,
    SUITE,
    Store,
    TornLine,
    disk_faults,
    read_records,
    read_suite,
    write_whole,
)
from support.calibrations import calibration
from support.records import ceilings_record, point_record


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "result") as store:
        yield store


def test_what_is_appended_is_read_back(store):
    for name in "abc":
        store.append_record(ceilings_record(name))
    store.append_samples("a", "denoise_step", [1.0, 2.0])
    store.append_samples("a", "denoise_step", [3.0])
    assert [r.fingerprint for r in read_records(store.directory)] == ["a", "b", "c"]
    assert store.prior_samples()["a"]["denoise_step"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("tail", ['{"schema_version":1,"ki', "garbage\n", '{"half": \n'])
def test_torn_last_line_is_left_out_with_a_warning_and_cut_on_resume(store, tail):
    store.append_record(ceilings_record("a"))
    path = store.directory / RECORDS
    whole = path.read_bytes()
    path.write_bytes(whole + tail.encode())
    with pytest.warns(TornLine):
        assert [r.fingerprint for r in read_records(store.directory)] == ["a"]
    store.__exit__()
    with pytest.warns(TornLine, match="cut"), Store(store.directory) as again:
        again.append_record(ceilings_record("b"))
    assert [r.fingerprint for r in read_records(store.directory)] == ["a", "b"]
    assert path.read_bytes().startswith(whole)


def test_every_cut_of_the_file_keeps_all_whole_records(store, recwarn):
    """kill -9 can stop a write after any byte."""
    for name in "ab":
        store.append_record(ceilings_record(name))
    path = store.directory / RECORDS
    raw = path.read_bytes()
    first = raw.index(b"\n") + 1
    for cut in range(first, len(raw) + 1):
        path.write_bytes(raw[:cut])
        expected = (
            ["a", "b"] if cut >= len(raw) - 1 else ["a"]
        )  # but for its newline the line is whole
        assert [r.fingerprint for r in read_records(store.directory)] == expected


def test_a_record_that_only_lacks_its_newline_is_kept_on_resume(store):
    store.append_record(ceilings_record("a"))
    path = store.directory / RECORDS
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    store.__exit__()
    with Store(store.directory) as again:
        again.append_record(ceilings_record("b"))
    assert [r.fingerprint for r in read_records(store.directory)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no record"),
        (b"\x00\xff\n", "not a JSON object"),
        (b'{"torn', "no whole record"),
        (b"[1]\n", "not a JSON object"),
        (b"{}\n", "not a record"),
        (b'{"kind": "point", "schema_version": 1}\n', "not a record"),
        (b'{"kind": "point", "schema_version": 99}\n', "schema version 99 is newer"),
    ],
)
def test_files_without_a_valid_record(tmp_path, content, message):
    (tmp_path / RECORDS).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_records(tmp_path)
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_no_torn_line(store):
    store.append_record(ceilings_record("a"))
    path = store.directory / RECORDS
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(UserError, match=f"{RECORDS}:1"):
        read_records(store.directory)


def test_no_directory_and_no_records(tmp_path):
    with pytest.raises(UserError, match="no such result directory"):
        read_records(tmp_path / "nowhere")
    with pytest.raises(UserError, match=RECORDS):
        read_records(tmp_path)


def test_two_writers(store):
    with pytest.raises(UserError, match="another ldt-bench is writing"), Store(store.directory):
        pass


def test_a_full_disk_is_the_environments_fault_and_keeps_what_was_written(store, monkeypatch):
    store.append_record(ceilings_record("a"))

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="no space left"):
        store.append_record(ceilings_record("b"))
    assert read_records(store.directory)[0].fingerprint == "a"


def test_a_file_where_a_directory_is_wanted(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a directory"), Store(tmp_path / "file"):
        pass


def test_read_only_directory():
    with pytest.raises(EnvironmentFault, match="read-only"), disk_faults("there"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_lines_are_json_one_record_each(store):
    store.append_record(ceilings_record("a"))
    store.append_samples("a", "x", [0.5])
    for name in (RECORDS, SAMPLES):
        (line,) = (store.directory / name).read_text().splitlines()
        assert json.loads(line)["fingerprint"] == "a"


NESTED = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def change(data: dict, path: str, value: object) -> dict:
    """A copy with one entry set, or taken out where value is None."""
    data = json.loads(json.dumps(data))
    *parents, leaf = path.split(".")
    part = data
    for key in parents:
        part = part[key]
    if value is None:
        del part[leaf]
    else:
        part[leaf] = value
    return data


def one_line(call, error: type[Exception] = UserError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("timings.denoise_step.median_s", 0.0, "median_s"),
        ("timings.denoise_step.low_s", float("nan"), "low_s"),
        ("timings.denoise_step.samples_s", [], "samples_s"),
        ("timings.denoise_step.samples_s", [float("inf")], "samples_s.0"),
        ("counts.denoise_step.linear_flops", -1, "linear_flops"),
        ("counts.denoise_step.linear_flops", 0, "timings.denoise_step: it has no counted work"),
        ("counts.denoise_step", None, "timings.denoise_step: it has no counted work"),
        ("point.workload", None, "point.workload.guidance is missing"),
        ("point.recipe.dtype", 16, "point.recipe.dtype is missing"),
        ("tokens", 0, "tokens"),
        ("environment", "here", "environment"),
    ],
)
def test_records_with_impossible_content(tmp_path, path, value, message):
    whole = point_record().model_dump(mode="json")
    (tmp_path / RECORDS).write_text(json.dumps(whole) + "\n")
    assert read_records(tmp_path)
    (tmp_path / RECORDS).write_text(json.dumps(change(whole, path, value)) + "\n")
    line = one_line(lambda: read_records(tmp_path))
    assert line.startswith(f"{tmp_path / RECORDS}:1: not a record: ")
    assert message in line


@pytest.mark.parametrize(
    "content", [NESTED + b"\n", b'{"a": ' + b"9" * 5000 + b"}\n", b'{"a": "\\ud800"}\n']
)
def test_json_that_python_cannot_hold(tmp_path, content):
    (tmp_path / RECORDS).write_bytes(content)
    assert "not a JSON object" in one_line(lambda: read_records(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "samples.jsonl:1: not a round of samples: fingerprint"),
        ('{"fingerprint": 1, "stage": "x", "samples_s": [1.0]}', "fingerprint"),
        ('{"fingerprint": "a", "stage": "x", "samples_s": 1.0}', "samples_s"),
        ('{"fingerprint": "a", "stage": "x", "samples_s": [0]}', "samples_s.0"),
        ('{"fingerprint": "a", "stage": "x", "samples_s": ["soon"]}', "samples_s.0"),
    ],
)
def test_samples_that_are_none(store, line, message):
    (store.directory / SAMPLES).write_text(line + "\n")
    assert message in one_line(store.prior_samples)


@pytest.mark.parametrize("name", [RECORDS, SAMPLES])
def test_a_directory_where_a_file_is_wanted(tmp_path, name):
    (tmp_path / name).mkdir()
    assert "expected a file, found a directory" in one_line(lambda: Store(tmp_path).__enter__())


WHOLE = calibration().model_dump(mode="json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"null", "not a JSON object"),
        (b"{", "EOF"),
        (NESTED, "recursion limit"),
        (b"\xff\xfe", "damaged"),
        (b'{"schema_version": 99}', "schema version 99 is newer"),
        *(
            (json.dumps(change(WHOLE, path, value)).encode(), message)
            for path, value, message in [
                ("schema_version", "x", "schema_version"),
                ("fits.eager-bf16.ceilings", None, "ceilings"),
                (
                    "fits.eager-bf16.ceilings.gemm_flops_per_s",
                    None,
                    "ceilings: gemm_flops_per_s missing",
                ),
                ("fits.eager-bf16.ceilings.copy_bytes_per_s", 0, "copy_bytes_per_s"),
                ("fits.eager-bf16.parameters.kernel_s", None, "parameters: kernel_s missing"),
                ("fits.eager-bf16.parameters.kernel_s.value", float("nan"), "kernel_s.value"),
                ("fits.eager-bf16.draws", [], "draws"),
                ("fits.eager-bf16.draws", [[1.0]], "draws: each is to have 13 entries"),
            ]
        ),
    ],
)
def test_damaged_calibrations(tmp_path, content, message):
    (tmp_path / CALIBRATION).write_text(json.dumps(WHOLE))
    assert read_calibration(tmp_path).gpu == "h100-sxm"
    (tmp_path / CALIBRATION).write_bytes(content)
    line = one_line(lambda: read_calibration(tmp_path))
    assert line.startswith(f"{tmp_path / CALIBRATION}: ")
    assert message in line


@pytest.mark.parametrize("content", [b"\xff", b"{}", b"", NESTED])
def test_damaged_suite(tmp_path, content):
    (tmp_path / SUITE).write_bytes(content)
    assert "damaged" in one_line(lambda: read_suite(tmp_path))


@pytest.mark.parametrize(
    ("name", "read"),
    [(RECORDS, read_records), (CALIBRATION, read_calibration), (SUITE, read_suite)],
)
def test_a_file_that_cannot_be_read_is_the_environments_fault(tmp_path, monkeypatch, name, read):
    """By monkeypatch, since permissions stop no root."""

    def refused(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / name).write_text("{}")
    monkeypatch.setattr(Path, "read_bytes", refused)
    assert "cannot be read: permission denied" in one_line(lambda: read(tmp_path), EnvironmentFault)


def test_a_missing_calibrations_directory_is_named(tmp_path):
    assert "no such result directory" in one_line(lambda: read_calibration(tmp_path / "nowhere"))


def test_nothing_is_said_to_be_kept_where_nothing_was_measured():
    with pytest.raises(EnvironmentFault) as caught, disk_faults(Path("there"), measured=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert str(caught.value) == "there: read-only file system"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "calibration.json"
    write_whole(path, "old")

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
