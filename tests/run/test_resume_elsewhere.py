"""Resumed on another machine, card or code: records are not mixed unless that is asked for."""

import json
import warnings
from pathlib import Path

import pytest

from bench.calibrate.make import calibrate
from bench.commands.run import _finish
from bench.core.errors import UserError
from bench.core.specs.suite import Suite
from bench.report.result import read_result
from bench.results.store import CALIBRATION, RECORDS, SAMPLES, Store, read_records
from support.records import ceilings_record
from support.runs import lines


def elsewhere(directory: Path, copy: Path) -> Path:
    """The first three records of a result as if another machine had made them, and rounds of the
    next point from there."""
    copy.mkdir()
    (copy / "suite.json").write_bytes((directory / "suite.json").read_bytes())
    records = [json.loads(line) for line in lines(directory / RECORDS)]
    for record in records:
        record["environment"]["threads"] += 9
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records[:-1]))
    there = (
        type(read_records(copy)[0].environment).model_validate(records[-1]["environment"]).digest()
    )
    (copy / SAMPLES).write_text(
        json.dumps(
            {
                "fingerprint": records[-1]["fingerprint"],
                "stage": "denoise_step",
                "samples_s": [123.0, 124.0],
                "environment": there,
            }
        )
        + "\n"
    )
    return copy


def test_environments_are_mixed_when_told_and_never_within_a_record(
    tmp_path, measured, here, only_svg
):
    directory, _ = measured
    copy = elsewhere(directory, tmp_path / "copy")
    code, _, err = here("run", "--device", "cpu", "--resume", str(copy))
    assert (code, "--mix-environments" in err) == (2, True)
    code, _, err = here("run", "--device", "cpu", "--resume", str(copy), "--mix-environments")
    assert code == 0, err
    assert "environments are mixed in it: threads" in err
    *before, last = read_records(copy)
    threads = last.environment.threads
    assert {r.environment.threads for r in before} == {threads + 9}  # each record keeps its own
    assert (
        max(last.timings["denoise_step"].samples_s) < 100
    )  # the other machine's samples are not continued
    assert "Not all of one environment" in (copy / "report.md").read_text()
    # Also where only an earlier record is unlike.
    code, _, err = here("run", "--device", "cpu", "--resume", str(copy))
    assert (code, "measured elsewhere or otherwise: threads" in err) == (2, True)
    code, _, err = here("run", "smoke", "--mix-environments")
    assert (code, "goes with --resume alone" in err) == (2, True)


def test_samples_of_elsewhere_are_not_continued_though_no_record_was_finished(tmp_path):
    with Store(tmp_path / "result") as store:
        store.append_samples("a", "denoise_step", [1.0], "here")
        store.append_samples("a", "denoise_step", [2.0], "there")
        store.append_samples("a", "denoise_step", [3.0])  # older results do not say
        assert store.prior_samples("here") == {"a": {"denoise_step": [1.0, 3.0]}}
        assert store.prior_samples() == {"a": {"denoise_step": [1.0, 2.0, 3.0]}}


def test_a_digest_is_of_what_a_result_depends_on():
    first = ceilings_record().environment
    assert first.digest() == first.model_copy(update={"memory_bytes": 1}).digest()
    for name, value in (
        ("driver", "other"),
        ("threads", 99),
        ("code_version", "other"),
        ("device_uuid_hash", "other"),
    ):
        assert first.digest() != first.model_copy(update={name: value}).digest()


def test_a_result_of_two_devices_keeps_no_calibration_of_one(tmp_path, measured, monkeypatch):
    """calibrate refuses it, and the file that a run on the first device left would be taken for
    this result's."""
    monkeypatch.setattr(
        "bench.report.write.write_report", lambda directory, for_print: directory / "report.md"
    )
    directory, _ = measured
    copy, said = tmp_path / "copy", []
    copy.mkdir()
    for name in (RECORDS, "suite.json", CALIBRATION):
        (copy / name).write_bytes((directory / name).read_bytes())
    records = [json.loads(line) for line in lines(copy / RECORDS)]
    records[-1]["environment"]["device_name"] = "another"
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records))
    _finish(copy, said.append)
    assert "records of several devices" in said[0]
    assert not (copy / CALIBRATION).exists()


def on_a_card(directory: Path, copy: Path, card: str | None, **other) -> Path:
    """A copy of a result, cut before its last point, as if a card had made it and begun that
    point."""
    copy.mkdir()
    (copy / "suite.json").write_bytes((directory / "suite.json").read_bytes())
    records = [json.loads(line) for line in lines(directory / RECORDS)]
    for record in records:
        record["environment"] |= {"device_uuid_hash": card, **other}
    (copy / RECORDS).write_text("".join(json.dumps(r) + "\n" for r in records[:-1]))
    begun = type(read_records(copy)[0].environment).model_validate(records[-1]["environment"])
    (copy / SAMPLES).write_text(
        json.dumps(
            {
                "fingerprint": records[-1]["fingerprint"],
                "stage": "denoise_step",
                "samples_s": [123.0],
                "environment": begun.digest(),
            }
        )
        + "\n"
    )
    return copy


def resume_on(copy: Path, card: str, monkeypatch) -> list[str]:
    """Go on with a result on another card, in this process -> the warnings.  The worker's
    environment is made up."""
    from bench.measure.worker.process import Worker
    from bench.run.suite import SuiteRun

    started = Worker._start

    def start(self) -> None:
        self._environment = None
        started(self)
        self._environment = self._environment.model_copy(update={"device_uuid_hash": card})

    monkeypatch.setattr(Worker, "_start", start)
    suite = Suite.model_validate_json((copy / "suite.json").read_bytes())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        SuiteRun(suite=suite, device="cpu", root=copy.parent, resume=copy).measure()
    return [str(w.message) for w in said]


def test_another_card_of_the_same_kind_goes_on_and_each_record_says_its_own(
    tmp_path, measured, monkeypatch
):
    directory, _ = measured
    copy = on_a_card(directory, tmp_path / "copy", "aaaa")
    before = len(lines(copy / RECORDS))
    said = resume_on(copy, "bbbb", monkeypatch)
    assert any(
        "measured on 2 cards of one kind: aaaa, bbbb; this is bbbb" in words for words in said
    )
    assert any(
        "begun on another card or with other code, and measured anew" in words for words in said
    )
    *first, last = read_records(copy)
    assert (len(first), {r.environment.device_uuid_hash for r in first}) == (before, {"aaaa"})
    assert last.environment.device_uuid_hash == "bbbb"
    assert (
        123.0 not in last.timings["denoise_step"].samples_s
    )  # the half-measured point started anew
    assert read_result(copy).mixed[-1] == "2 cards of one kind: aaaa, bbbb"
    with pytest.warns(UserWarning, match="measured on 2 cards of one kind: aaaa, bbbb"):
        calibrate(copy)


def test_another_kind_of_card_is_refused(tmp_path, measured, monkeypatch):
    directory, _ = measured
    copy = on_a_card(directory, tmp_path / "copy", "aaaa", device_name="another kind")
    with pytest.raises(UserError, match="device_name another kind"):
        resume_on(copy, "bbbb", monkeypatch)


def test_a_worker_that_comes_back_on_another_card_is_not_gone_on_with(monkeypatch):
    """Within a run the card does not change under it; --resume says what can go on."""
    from bench.core.errors import EnvironmentFault
    from bench.measure.worker import process

    with process.Worker("cpu") as worker:
        first = worker.environment
        worker._environment = first.model_copy(update={"device_uuid_hash": "aaaa"})
        monkeypatch.setattr(
            process.Environment,
            "model_validate",
            lambda data: first.model_copy(update={"device_uuid_hash": "bbbb"}),
        )
        with pytest.raises(
            EnvironmentFault, match="came back otherwise: 2 cards of one kind: aaaa, bbbb"
        ):
            worker._start()
