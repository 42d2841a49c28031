"""A step on ranks is predicted from the records before it, and a result of such steps predicts."""

import json

import numpy as np
import pytest

from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import PRIOR
from bench.calibrate.cost.seconds import Priced
from bench.calibrate.cost.work import Work
from bench.calibrate.make import calibrate
from bench.core.load import load, load_point
from bench.core.specs.point import Point
from bench.core.specs.suite import Suite
from bench.count.cache import counted
from bench.count.parallel.sent import sent_bytes
from bench.measure.probes.links import CALLS
from bench.measure.timing.sampling import summarise
from bench.measure.worker.jobs import ANSWERS
from bench.results.records import CeilingsRecord, PointRecord, Probe
from bench.results.store import SUITE, Store, write_whole
from bench.run.foresight import Foresight
from bench.run.jobs import Job
from support.records import ceilings_record, environment, point_record

STAGES = ("denoise_step", "vae_decode", "text_encode")
CEILINGS = Ceilings(1e11, 1e11, 1e11, 1e10)
LATENCY_S, BYTES_PER_S = 1e-3, 1e9


class HereWorker:
    """Answers counting requests in this process."""

    environment = environment()

    def run(self, request, timeout_s):
        return ANSWERS[type(request)](request, None)


def timing(seconds: float):
    return summarise([seconds] * 7, [], "converged", True)


def probe(kind: str, shape: dict[str, int], seconds: float, **work: int) -> Probe:
    backend = "auto" if kind == "attention" else None
    none = {"flops": None, "bytes_moved": None}
    return Probe(
        kind=kind, dtype="fp32", backend=backend, shape=shape, timing=timing(seconds), **none | work
    )  # fmt: skip


def one_ranks_ceilings() -> CeilingsRecord:
    size = {"m": 2048, "n": 2048, "k": 2048}
    attention = {"batch": 1, "heads": 4, "tokens": 2048, "head_dim": 64}
    conv = {"channels": 64, "frames": 9, "height": 64, "width": 64}
    flops = 10**10
    probes = [
        probe("gemm", size, flops / CEILINGS.gemm_flops_per_s, flops=flops),
        probe("attention", attention, flops / CEILINGS.attention_flops_per_s, flops=flops),
        probe("conv3d", conv, flops / CEILINGS.conv_flops_per_s, flops=flops),
        probe("copy", {"bytes": 2**28}, 2**29 / CEILINGS.copy_bytes_per_s, bytes_moved=2**29),
    ]
    return ceilings_record().model_copy(update={"probes": probes})


def links() -> CeilingsRecord:
    probes = [
        probe(
            kind,
            {"bytes": size, "ranks": 2, "across": 0},
            LATENCY_S + (moved := sent_bytes(kind, 2, size)) / BYTES_PER_S,
            bytes_moved=moved,
        )
        for kind in CALLS
        for size in (2**n for n in range(10, 25, 2))
    ]
    return ceilings_record("links").model_copy(update={"probes": probes, "ranks": 2})


def mesh(text: dict[str, int], workload: str = "tiny-video") -> Point:
    overrides = {"recipe.parallel": text}
    return load_point("tiny", workload, "eager-fp32", overrides, ("denoise_step",))


def record(point: Point) -> PointRecord:
    """As long as the cost model at its priors gives."""
    counts = counted(point).stages
    works = [Work.of(counts[stage]) for stage in point.stages]
    seconds = Priced(works, CEILINGS).seconds(PRIOR)
    return point_record().model_copy(
        update={
            "fingerprint": point.fingerprint,
            "model": point.model.name,
            "workload": point.workload.name,
            "point": point.model_dump(mode="json"),
            "tokens": point.model.tokens(point.workload),
            "counts": counts,
            "timings": dict(zip(point.stages, map(timing, seconds), strict=True)),
        }
    )


@pytest.fixture
def measured_on_one_rank(tmp_path):
    """A result directory with one rank's points and both ceilings, as a run has them before its
    first mesh."""
    directory = tmp_path / "result"
    with Store(directory) as store:
        store.append_record(one_ranks_ceilings())
        for workload in ("tiny-image", "tiny-clip", "tiny-video", "tiny-wide"):
            store.append_record(record(load_point("tiny", workload, "eager-fp32", {}, STAGES)))
        store.append_record(links())
        write_whole(directory / SUITE, load(Suite, "scaling-cpu").model_dump_json())
        yield store


def foresee(store: Store, point: Point):
    return Foresight()(Job(point.fingerprint, "p", point), store, HereWorker())


def test_ulysses_is_half_the_work_and_its_messages(measured_on_one_rank):
    said, missing = foresee(measured_on_one_rank, mesh({"ulysses": 2}))
    assert missing is None
    assert said.one_rank == "measured"
    expected = sum(m.calls * (LATENCY_S + m.bytes_sent / BYTES_PER_S) for m in said.messages)
    # Between two measured sizes the curve is a straight line in logarithms, not a + b n.
    assert said.communication_s == pytest.approx(expected, rel=0.1)
    assert 0.5 * said.one_rank_s < said.compute_s < 0.6 * said.one_rank_s


def test_cfg_halves_a_step_and_gathers_once(measured_on_one_rank):
    said, _ = foresee(measured_on_one_rank, mesh({"cfg": 2}))
    assert [(m.collective, m.calls) for m in said.messages] == [("all-gather", 1)]
    assert said.compute_s == pytest.approx(said.one_rank_s / 2, rel=0.02)
    assert said.efficiency == pytest.approx(1.0, abs=0.1)


def test_a_point_that_was_not_measured_alone_rests_on_the_fit(measured_on_one_rank):
    said, _ = foresee(measured_on_one_rank, mesh({"ulysses": 2}, "tiny-tall"))
    assert said.one_rank == "fitted"


def test_what_is_missing_is_said(measured_on_one_rank):
    said, missing = foresee(measured_on_one_rank, mesh({"ulysses": 4}))
    assert said is None
    assert missing == "no ceilings of one rank and of 4 ranks before it"
    alone = load_point("tiny", "tiny-video", "eager-fp32")
    assert foresee(measured_on_one_rank, alone) == (None, None)


def test_a_result_predicts_two_of_its_ranks(measured_on_one_rank, here):
    store = measured_on_one_rank
    calibrate(store.directory)
    code, out, err = here(
        "predict", "tiny", "-w", "tiny-video", "--calibration", str(store.directory), "--gpus", "2",
        "--json",
    )  # fmt: skip
    assert code == 0, err
    said = json.loads(out)
    assert {m["gpus"] for m in said["meshes"]} == {2}
    best = said["best"]
    # Two branches on two ranks: half the steps' seconds, one small message a step.
    assert best["parallel"]["cfg"] == 2
    alone = next(m for m in said["meshes"] if m["parallel"]["data"] == 2)
    halves = best["video_s_by_part"]["denoise"] / alone["video_s_by_part"]["denoise"]
    assert halves == pytest.approx(0.5, rel=0.05)
    steps = load_point("tiny", "tiny-video", "eager-fp32").workload.steps
    sent_s = best["video_s_by_part"]["communication"]
    assert sent_s == pytest.approx(steps * LATENCY_S, rel=0.5)
    assert np.isfinite(best["video_s"]["high"])
    code, _, err = here(
        "predict", "tiny", "-w", "tiny-video", "--calibration", str(store.directory), "--gpus", "4"
    )  # fmt: skip
    assert code == 2
    assert "expected one of 1, 2, which the result measured" in err
