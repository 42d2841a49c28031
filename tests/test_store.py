"""What is on disk survives: torn lines, damage, two writers, no space."""

import errno
import json
import os

import pytest
from test_fit import environment

from bench.core.errors import EnvironmentFault, UserError
from bench.core.records import CeilingsRecord
from bench.core.store import RECORDS, SAMPLES, Store, TornLine, disk_faults, read_records


def record(fingerprint: str = "a") -> CeilingsRecord:
    return CeilingsRecord(fingerprint=fingerprint, suite="s", started_utc="2026-01-01T00:00:00+00:00", wall_s=1.0,
                          outcome="ok", reason=None, environment=environment(), probes=[], telemetry=None)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "result") as store:
        yield store


def test_what_is_appended_is_read_back(store):
    for name in "abc":
        store.append_record(record(name))
    store.append_samples("a", "denoise_step", [1.0, 2.0])
    store.append_samples("a", "denoise_step", [3.0])
    assert [r.fingerprint for r in read_records(store.directory)] == ["a", "b", "c"]
    assert store.prior_samples()["a"]["denoise_step"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("tail", ['{"schema_version":1,"ki', "garbage\n", '{"half": \n'])
def test_torn_last_line_is_left_out_with_a_warning_and_cut_on_resume(store, tail):
    store.append_record(record("a"))
    path = store.directory / RECORDS
    whole = path.read_bytes()
    path.write_bytes(whole + tail.encode())
    with pytest.warns(TornLine):
        assert [r.fingerprint for r in read_records(store.directory)] == ["a"]
    store.__exit__()
    with pytest.warns(TornLine, match="cut"), Store(store.directory) as again:
        again.append_record(record("b"))
    assert [r.fingerprint for r in read_records(store.directory)] == ["a", "b"]
    assert path.read_bytes().startswith(whole)


def test_every_cut_of_the_file_keeps_all_whole_records(store, recwarn):
    """kill -9 can stop a write after any byte."""
    for name in "ab":
        store.append_record(record(name))
    path = store.directory / RECORDS
    raw = path.read_bytes()
    first = raw.index(b"\n") + 1
    for cut in range(first, len(raw) + 1):
        path.write_bytes(raw[:cut])
        expected = ["a", "b"] if cut >= len(raw) - 1 else ["a"]       # but for its newline the line is whole
        assert [r.fingerprint for r in read_records(store.directory)] == expected


def test_a_record_that_only_lacks_its_newline_is_kept_on_resume(store):
    store.append_record(record("a"))
    path = store.directory / RECORDS
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    store.__exit__()
    with Store(store.directory) as again:
        again.append_record(record("b"))
    assert [r.fingerprint for r in read_records(store.directory)] == ["a", "b"]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "holds no record"),
    (b"\x00\xff\n", "not a JSON object"),
    (b'{"torn', "no whole record"),
    (b"[1]\n", "not a JSON object"),
    (b"{}\n", "not a record"),
    (b'{"kind": "point", "schema_version": 1}\n', "not a record"),
    (b'{"kind": "point", "schema_version": 99}\n', "schema version 99 is newer"),
])
def test_files_without_a_valid_record(tmp_path, content, message):
    (tmp_path / RECORDS).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_records(tmp_path)
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_no_torn_line(store):
    store.append_record(record("a"))
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
    store.append_record(record("a"))

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="no space left"):
        store.append_record(record("b"))
    assert read_records(store.directory)[0].fingerprint == "a"


def test_a_file_where_a_directory_is_wanted(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a directory is expected"), Store(tmp_path / "file"):
        pass


def test_read_only_directory():
    with pytest.raises(EnvironmentFault, match="read-only"), disk_faults("there"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_lines_are_json_one_record_each(store):
    store.append_record(record("a"))
    store.append_samples("a", "x", [0.5])
    for name in (RECORDS, SAMPLES):
        (line,) = (store.directory / name).read_text().splitlines()
        json.loads(line)
