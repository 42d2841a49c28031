"""A step on several ranks, from one rank's fit and from what the links were measured to do."""

import numpy as np
import pytest

from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import PRIOR
from bench.calibrate.scaling.check import MeasuredStep, errors, measured_steps
from bench.calibrate.scaling.measured import Links, OneRank, step_on_ranks
from bench.core.quantity import Quantity
from bench.measure.timing.sampling import summarise
from bench.results.readings import GroupReading, RankReading
from bench.results.records import CeilingsRecord, Probe
from bench.results.scaling import Message, StepOnRanks
from models.parallel.spec import Parallel
from support.records import ceilings_record, count, point_record


def probe(kind: str, shape: dict[str, int], seconds: float, moved: int) -> Probe:
    timing = summarise([seconds] * 3, [], "converged", True)
    return Probe(
        kind=kind, dtype="fp32", backend=None, shape=shape, flops=None, bytes_moved=moved,
        timing=timing,
    )  # fmt: skip


def at_once(kind: str, size: int, alone_s: float, together_s: float, ranks: int) -> list[Probe]:
    return [
        probe(kind, {"bytes": size, "at_once": n}, s, 2 * size)
        for n, s in ((1, alone_s), (ranks, together_s))
    ]


def links(*probes: Probe, ranks: int = 2, nodes: int = 1) -> Links:
    fields = ceilings_record().model_dump() | {"probes": list(probes), "ranks": ranks}
    return Links(CeilingsRecord.model_validate(fields | {"nodes": nodes}))


def message(size: int, seconds: float, ranks: int = 2, across: int = 0) -> Probe:
    shape = {"bytes": size, "ranks": ranks, "across": across}
    return probe("all-to-all", shape, seconds, size)


def test_a_message_between_two_sizes_is_priced_between_them():
    known = links(message(1000, 1e-3), message(4000, 2e-3))
    # 2,000 is half way from 1,000 to 4,000 by logarithms, and so is 1.414 ms from 1 to 2.
    assert known.seconds("all-to-all", 2, 2000) == pytest.approx(2**0.5 * 1e-3)
    assert known.seconds("all-to-all", 2, 10) == pytest.approx(1e-3)  # the latency
    assert known.seconds("all-to-all", 2, 40_000) == pytest.approx(20e-3)  # the bandwidth


def test_a_collective_that_was_not_measured_is_named():
    known = links(message(1000, 1e-3))
    with pytest.raises(ValueError, match="all-reduce of 2 ranks was not measured"):
        known.seconds("all-reduce", 2, 1000)
    with pytest.raises(ValueError, match="all-to-all of 2 ranks across nodes was not measured"):
        known.seconds("all-to-all", 2, 1000, across=True)


def test_the_outer_axes_go_across_nodes():
    # 2 nodes of 4: tensor 2 x ulysses 2 fill a node, cfg 2 takes one rank of each.
    known = links(message(1000, 1e-3), ranks=8, nodes=2)
    mesh = Parallel(cfg=2, ulysses=2, tensor=2)
    spans = {axis: known.across(axis, mesh) for axis in ("cfg", "ulysses", "tensor", "weights")}
    assert spans == {"cfg": True, "ulysses": False, "tensor": False, "weights": True}


def test_a_rank_among_busy_ones_keeps_a_share_of_its_rates():
    known = links(
        *at_once("copy", 2**20, 1.0, 2.0, 2),
        *at_once("copy", 2**24, 1.0, 4.0, 2),
        *at_once("activation", 2**23, 1.0, 1.25, 2),
    )
    ladder = ((2.0**21, 3e10), (2.0**25, 1e10))
    alone = Ceilings(1e11, 1e11, 1e11, 1e10, activation_bytes_per_s=4e9, ladder=ladder)
    kept = known.ceilings(alone)
    assert kept.ladder == ((2.0**21, 1.5e10), (2.0**25, 0.25e10))
    assert kept.copy_bytes_per_s == pytest.approx(0.25e10)
    assert kept.activation_bytes_per_s == pytest.approx(3.2e9)
    assert kept.gemm_flops_per_s == 1e11  # nothing was measured of it


def fitted() -> OneRank:
    ceilings = Ceilings(1e11, 1e11, 1e11, 1e10)
    draws = np.array([PRIOR * factor for factor in (0.9, 1.0, 1.1)])
    return OneRank(ceilings, PRIOR.copy(), draws, stages=9)


def step(messages: list[Message], measured_s: float | None, share: int = 2) -> StepOnRanks:
    known = links(message(1000, 1e-3))
    whole = count(linear_flops=8 * 10**9, kernels=10)
    part = count(linear_flops=8 * 10**9 // share, kernels=10)
    return step_on_ranks(whole, part, messages, Parallel(ulysses=2), fitted(), known, measured_s)


def test_without_messages_two_ranks_halve_a_step_of_products():
    alone = step([], 0.2)
    # 8 GFLOP at 80 % of 100 GFLOP/s take 0.1 s, beside which ten launches of 5 us are nothing.
    assert alone.compute_s == pytest.approx(0.1, rel=1e-2)
    assert alone.communication_s == 0.0
    assert alone.efficiency == pytest.approx(1.0, rel=1e-2)
    assert alone.one_rank == "measured"


def test_messages_are_added_one_by_one():
    sent = [Message(axis="ulysses", collective="all-to-all", ranks=2, bytes_sent=1000, calls=30)]
    seen, none = step(sent, 0.2), step([], 0.2)
    assert seen.communication_s == pytest.approx(30e-3)
    assert seen.step_s.value == pytest.approx(none.step_s.value + 30e-3)
    assert seen.step_s.low <= seen.step_s.value <= seen.step_s.high


def test_a_step_that_one_rank_never_ran_rests_on_the_fit():
    said = step([], None)
    assert said.one_rank == "fitted"
    assert said.one_rank_s == pytest.approx(0.1, rel=1e-2)


def measured(model: str, miss: float, one_rank_s: float = 1.0) -> MeasuredStep:
    """A step that took `miss` times what was predicted."""
    predicted = step([], one_rank_s)
    seconds = predicted.step_s.value * miss
    rank = RankReading(
        rank=0, median_s={"denoise_step": seconds}, peak_allocated=None, energy_j={},
        in_collectives_s=None,
    )  # fmt: skip
    group = GroupReading(
        mesh="ulysses 2", of_one_sample=2, ranks=[rank], threads=1, reason="out of sight"
    )
    record = point_record().model_copy(
        update={"model": model, "group": group, "predicted": predicted}
    )
    return MeasuredStep(record, predicted, seconds, None)


def test_a_miss_that_all_share_is_taken_out_by_the_others():
    steps = [measured(model, miss) for model, miss in (("a", 1.25), ("b", 1.25), ("c", 1.25))]
    found = errors(steps)
    assert found["before"].mean == pytest.approx(0.2)  # 1 / 1.25 is 20 % too little
    assert found["held_out"].mean == pytest.approx(0.0, abs=1e-9)
    assert found["constant_efficiency"].mean == pytest.approx(0.0, abs=1e-9)


def test_a_step_is_not_predicted_from_another_mesh_of_it():
    found = errors([measured("a", 1.1), measured("a", 1.2)])
    assert found["before"] is not None
    assert found["held_out"] is None


def test_a_groups_energy_is_that_of_the_ranks_of_one_sample():
    group = measured("a", 1.0).record.group
    ranks = [
        group.ranks[0].model_copy(update={"rank": i, "energy_j": {"denoise_step": 100.0 + i}})
        for i in range(4)
    ]
    one = group.model_copy(update={"ranks": ranks, "of_one_sample": 4})
    two = group.model_copy(update={"ranks": ranks, "of_one_sample": 2})  # data 2
    assert one.joules == {"denoise_step": 406.0}
    assert two.joules == {"denoise_step": 203.0}
    silent = [ranks[0].model_copy(update={"energy_j": {}}), *ranks[1:]]
    assert group.model_copy(update={"ranks": silent}).joules == {}


def test_only_steps_on_ranks_that_were_predicted_count():
    assert measured_steps([point_record()]) == []
    said = measured("a", 1.1).record
    assert [s.record for s in measured_steps([said])] == [said]
    assert said.predicted.step_s == Quantity(**said.predicted.step_s.as_dict())
