"""Shards: every point is in one, whoever asks, and they take about equally long."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.suite import Shard, Suite
from bench.measure.worker.jobs import ANSWERS
from bench.results.store import RECORDS, read_suite
from bench.run.jobs import suite_jobs
from bench.run.shards import anchor_jobs, jobs_here, parse_shard, shares
from support.cli import FIVE_POINTS, variant
from support.records import environment
from support.runs import lines

names = st.text("abcdef0123456789", min_size=4, max_size=8)
seconds_of_points = st.dictionaries(names, st.floats(0.01, 1e4), min_size=1, max_size=60)


class HereWorker:
    """Answers counting requests in this process."""

    environment = environment()

    def run(self, request, timeout_s):
        return ANSWERS[type(request)](request, None)


@given(seconds_of_points, st.integers(1, 12))
def test_every_point_is_in_one_shard_and_none_is_far_over_the_bound(seconds, count):
    share = shares(seconds, count)
    assert share.keys() == seconds.keys()
    assert set(share.values()) <= set(range(1, count + 1))
    loads = [sum(s for n, s in seconds.items() if share[n] == i) for i in range(1, count + 1)]
    # Longest processing time first ends within 4/3 of the best, which is no less than either.
    bound = max(max(seconds.values()), sum(seconds.values()) / count)
    assert max(loads) <= (4 / 3 + 0.01) * bound + max(seconds.values()) / count


@given(seconds_of_points, st.integers(1, 12), st.randoms())
def test_the_order_of_the_points_does_not_matter(seconds, count, random):
    names = list(seconds)
    random.shuffle(names)
    assert shares({name: seconds[name] for name in names}, count) == shares(seconds, count)


def test_noise_in_the_last_digits_moves_no_point():
    seconds = {f"p{i}": 10.0 + i for i in range(20)}
    noisy = {name: s * (1 + 1e-9) for name, s in seconds.items()}
    assert shares(seconds, 3) == shares(noisy, 3)


def test_the_shards_of_a_suite_are_its_points_and_each_has_the_anchors():
    suite = load(Suite, "calibrate-cpu")
    anchors = {job.fingerprint for job in anchor_jobs(suite, "cpu")}
    assert len(anchors) == 4
    whole = {job.fingerprint for job in suite_jobs(suite)}
    shards = []
    for index in (1, 2, 3):
        part = suite.model_copy(update={"shard": Shard(index=index, count=3)})
        shards.append({job.fingerprint for job in jobs_here(part, HereWorker(), "cpu")})
    ceilings = next(job.fingerprint for job in suite_jobs(suite) if job.point is None)
    for shard in shards:
        assert anchors | {ceilings} <= shard
    own = [shard - anchors - {ceilings} for shard in shards]
    assert set().union(*own) | {ceilings} | (whole & anchors) == whole
    assert sum(map(len, own)) == len(set().union(*own))  # none is in two


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "a/b", "1/99999999", "1/3/3"])
def test_a_shard_that_is_none(text):
    with pytest.raises(UserError, match="expected"):
        parse_shard(text)


def test_a_shards_result_keeps_which_it_is(here, tmp_path):
    code, _, err = here("run", "smoke", "--shard", "2")
    assert (code, err.count("\n")) == (2, 1)
    assert "--shard '2': expected I/N, e.g. 3/10" in err
    code, _, err = here("run", "smoke", "--shards-here", "999", "--device", "cpu")
    assert code == 2
    assert "this machine has" in err


def test_a_shard_goes_on_with_its_own_share(tmp_path, unreported):
    suite = variant(tmp_path, "shared")
    on_cpu = ("--device", "cpu", "--out", str(tmp_path))

    def points() -> list[str]:
        return [json.loads(line)["fingerprint"] for line in lines(directory / RECORDS)]

    def planned(*more: str) -> int:
        code, out, err = unreported("run", *more, "--dry-run", "--device", "cpu", "--quiet")
        assert code == 0, err
        return len(json.loads(out.splitlines()[-1])["points"])

    code, _, err = unreported("run", str(suite), "--shard", "1/2", *on_cpu)
    assert code == 0, err
    directory = next(tmp_path.glob("cpu/*"))
    share = points()
    assert len(set(share)) == len(share) < 5 + 4  # of five points and four anchors
    resumed = ("--resume", str(directory))
    for kept, command in ((2, resumed), (3, (str(suite), *resumed, "--shard", "1/2"))):
        (directory / RECORDS).write_text(
            "".join(f"{line}\n" for line in lines(directory / RECORDS)[:kept])
        )
        assert planned(*command) == len(share) - kept
        code, _, err = unreported("run", *command, "--device", "cpu")
        assert code == 0, err
        assert points() == share
    assert planned(str(suite), *resumed) == 0  # the result says of which share it is
    assert read_suite(directory).shard == Shard(index=1, count=2)

    code, _, err = unreported("run", *resumed, "--shard", "2/2", "--device", "cpu")
    assert (code, f"--shard 2/2: {directory} is of shard 1/2" in err) == (2, True)
    grown = variant(tmp_path, "shared", points=[*FIVE_POINTS, {**FIVE_POINTS[1], "set": {}}])
    code, _, err = unreported("run", str(grown), *resumed, "--device", "cpu")
    assert (code, "is shared otherwise now" in err) == (2, True)
