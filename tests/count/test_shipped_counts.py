"""Counts that travel with the package: of every preset's point, of this code, and the same as
counting gives."""

import gzip
import importlib.util
import json
from importlib import resources

import pytest
import torch

from bench.core.load import load_point
from bench.count import shipped
from bench.count.cache import counted
from bench.count.shipped import FILE, counting_code, shipped_count
from bench.measure.timing.clock import clock_for
from bench.measure.worker import jobs
from bench.measure.worker.protocol import CountPoint, MeasurePoint, read_request
from support.paths import ROOT
from support.plans import PLAN


@pytest.fixture(scope="module")
def make_counts():
    """docs/make_counts.py as a module."""
    spec = importlib.util.spec_from_file_location("make_counts", ROOT / "docs" / "make_counts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def other_document(monkeypatch):
    """other_document(**change): the file as if some of it were otherwise."""
    real = shipped.shipped_document()

    def change(**changed) -> None:
        monkeypatch.setattr(shipped, "shipped_document", lambda: {**real, **changed})

    return change


def test_every_point_of_every_suite_has_its_counts(make_counts):
    missing = [
        point.label for point in make_counts.points().values() if shipped_count(point) is None
    ]
    assert missing == []
    assert (resources.files("configs") / FILE).stat().st_size < 2e6


def test_a_point_that_is_otherwise_in_anything_that_is_executed_is_not_known():
    point = load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step", "vae_decode"))
    assert shipped_count(point).tokens == point.model.tokens(point.workload)
    for other in (
        {"denoiser.depth": 3},
        {"workload.frames": 33},
        {"vae.channels": [32, 64, 96]},
        {"workload.guidance": "cfg"},
    ):
        assert shipped_count(load_point("tiny", "tiny-clip", "eager-fp32", other)) is None
    assert shipped_count(load_point("tiny", "tiny-clip", "eager-fp16")) is None  # in no suite
    described = point.model.model_copy(update={"description": "other words"})
    assert shipped_count(point.model_copy(update={"model": described})) is not None


def test_stages_that_are_counted_when_asked_for_are_given_when_asked_for():
    plain, trained = (
        load_point("tiny", "tiny-clip", "eager-fp32", stages=stages)
        for stages in (("denoise_step",), ("denoise_step", "train_step"))
    )
    assert "train_step" not in shipped_count(plain).stages
    assert shipped_count(trained).stages["train_step"].flops > 0  # chain-cpu runs it
    assert (
        shipped_count(load_point("tiny", "tiny-clip", "eager-fp32", stages=("trajectory",))) is None
    )


def test_counts_of_other_code_or_of_another_diffusers_are_not_used(other_document):
    own, public = (
        load_point("tiny", "tiny-clip", "eager-fp32"),
        load_point("wan2.1-t2v-1.3b", "480p-81f", "eager-bf16"),
    )
    assert shipped_count(own)
    assert shipped_count(public)
    other_document(diffusers="0.1")
    assert shipped_count(own)
    assert shipped_count(public) is None
    other_document(code="another")
    assert shipped_count(own) is None


def test_without_the_file_everything_is_counted(tmp_path, monkeypatch):
    point = load_point("tiny", "tiny-clip", "eager-fp32")
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path)
    shipped.shipped_document.cache_clear()
    try:
        assert shipped.shipped_document()["counts"] == {}
        (tmp_path / "counts").mkdir()
        (tmp_path / FILE).write_bytes(gzip.compress(b'{"torn')[:-9])
        shipped.shipped_document.cache_clear()
        assert shipped_count(point) is None
    finally:
        shipped.shipped_document.cache_clear()


def test_a_change_of_the_sources_changes_the_digest(tmp_path, monkeypatch):
    for package in ("bench.count", "models"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("FLOPS = 2\n")
    monkeypatch.setattr(shipped.resources, "files", lambda package: tmp_path / package)
    before = counting_code()
    assert before == counting_code()
    (tmp_path / "models" / "a.py").write_text("FLOPS = 3\n")
    assert counting_code() != before


def test_the_worker_counts_no_preset(monkeypatch):
    def never(*_):
        raise AssertionError("a preset was counted")

    monkeypatch.setattr(jobs, "count_stages", never)
    monkeypatch.setattr("bench.measure.points.build.count_point", never)
    monkeypatch.setattr(jobs, "_COUNTS", {})
    point = load_point("tiny", "tiny-clip", "eager-fp32", stages=("denoise_step", "vae_decode"))
    session = jobs.Session(torch.device("cpu"), clock_for(torch.device("cpu")))
    request = CountPoint(point=point).model_dump(mode="json")
    answer = jobs.answer(read_request(json.loads(json.dumps(request))), session)  # of a dry run
    params = shipped_count(point).params
    assert answer.weights == 4 * (params["denoiser"] + params["vae"])
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    measured = jobs.answer(MeasurePoint(point=point, sampling=plan), session)
    assert measured.counts == answer.counts
    assert measured.tokens == shipped_count(point).tokens
    assert counted(point).params == params  # and `predict` counts none either


def test_a_quick_point_is_counted_the_same_now(make_counts):
    document = shipped.shipped_document()
    for model, workload in (("tiny", "tiny-image"), ("tiny-factorised", "tiny-video")):
        point = load_point(model, workload, "eager-fp32")
        was = make_counts.whole(document, point.subject)
        asked = tuple(stage for stage in was["stages"] if stage == "train_step")
        now = make_counts.count(point.model_copy(update={"stages": (*point.stages, *asked)}))
        assert make_counts.differences(point, was, now) == []


def test_the_check_finds_a_rule_that_changed(make_counts):
    document = shipped.shipped_document()
    point = load_point("tiny", "tiny-image", "eager-fp32")
    was = make_counts.whole(document, point.subject)
    step = was["stages"]["denoise_step"]
    for name, value, words in (
        ("conv_flops", step["conv_flops"] + 2, "conv_flops"),
        ("kernels", 2 * step["kernels"], "kernels"),
        ("bytes_modelled_max", step["bytes_modelled_max"] * 3 // 2, "bytes_modelled_max"),
    ):
        changed = {**was, "stages": {**was["stages"], "denoise_step": {**step, name: value}}}
        assert any(words in line for line in make_counts.differences(point, was, changed))
    operators = {**step["operators"], "m": [m + 1 for m in step["operators"]["m"]]}
    changed = {**was, "stages": {**was["stages"], "denoise_step": {**step, "operators": operators}}}
    assert any(
        "products are of other sizes" in line
        for line in make_counts.differences(point, was, changed)
    )
    assert make_counts.differences(point, was, {**was, "tokens": 1}) == [
        "tiny tiny-image eager-fp32: tokens 64, counted 1"
    ]


def test_the_check_turns_through_all_points_in_the_time_it_has(make_counts):
    counts = shipped.shipped_document()["counts"]
    seen = set()
    for day in range(len(counts)):
        chosen = make_counts.chosen(counts, False, day)
        assert chosen
        seconds = sorted(counts[subject]["seconds"] for subject in chosen)
        assert sum(seconds[:-1]) <= make_counts.CHECK_S
        seen |= set(chosen)
    assert seen == set(counts)
    assert make_counts.chosen(counts, True, 0) == list(counts)


@pytest.mark.slow
def test_all_shipped_counts_are_what_counting_gives(make_counts):
    assert make_counts.faults(True, 0) == []
