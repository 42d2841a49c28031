"""What two real ranks reach together."""

from collections import Counter

import pytest

from bench.calibrate.scaling.measured import Links
from bench.core.specs.suite import Sampling
from bench.measure.probes.links import CALLS, MESSAGE_BYTES
from bench.measure.worker.process import Worker
from bench.measure.worker.protocol import CountRank, MeasureLinks
from bench.results.records import CeilingsRecord
from support.measure.groups import request
from support.records import ceilings_record

QUICK = Sampling(target_relative_half_width=0.9, min_samples=2, max_samples=3, max_s=0.05)


@pytest.fixture(scope="module")
def worker():
    with Worker("cpu", threads=1) as worker:
        yield worker


def test_each_collective_is_timed_at_each_size(worker):
    asked = MeasureLinks(ranks=2, recipes=[("fp32", "auto")], sampling=QUICK)
    rounds = []
    reply = worker.run(asked, 120, lambda key, samples: rounds.append(key))
    assert reply.left_out is None
    collectives = [p for p in reply.probes if "ranks" in p.shape]
    sizes = {(p.kind, p.shape["bytes"]) for p in collectives}
    assert sizes == {(kind, size) for kind in CALLS for size in MESSAGE_BYTES["cpu"]}
    sent = {p.kind: p.bytes_moved for p in collectives if p.shape["bytes"] == 2**20}
    half, whole = 2**19, 2**20  # of two ranks' all-to-all one half stays
    assert sent == {
        "all-to-all": half,
        "all-gather": whole,
        "reduce-scatter": half,
        "all-reduce": 2 * half,
        "point-to-point": whole,
    }
    assert {p.shape["across"] for p in collectives} == {0}
    assert len(set(rounds)) == len(reply.probes)  # none overwrites another's samples
    assert reply.sentinel.before_s > 0

    record = ceilings_record().model_dump() | {"ranks": 2, "probes": reply.probes}
    links = Links(CeilingsRecord.model_validate(record))
    for kind in CALLS:
        small, large = (links.seconds(kind, 2, size) for size in (2**10, 2**25))
        assert 0 < small < large
    for kind in ("gemm", "attention", "conv3d", "activation", "fresh_write", "copy"):
        assert links.kept(kind) > 0
        assert {p.shape["at_once"] for p in reply.probes if p.kind == kind} == {1, 2}


def test_a_ranks_step_is_counted_without_ranks(worker):
    point = request(ulysses=2).point
    reply = worker.run(CountRank(point=point), 120)
    alone = worker.run(CountRank(point=request(data=1).point), 120)
    assert reply.step.flops < alone.step.flops
    assert alone.messages == []
    # Four blocks (depth of tiny) exchange twice a forward; the answer is gathered once.
    calls = Counter()
    for sent in reply.messages:
        calls[sent.collective] += sent.calls
    assert calls == {"all-to-all": 8, "all-gather": 1}
