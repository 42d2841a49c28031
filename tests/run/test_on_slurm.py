"""A suite as an array of shards, by submitit's local executor where it is installed."""

import pytest

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.specs.suite import Suite
from bench.results.store import point_records, read_records, read_suite
from bench.run.engines.on_slurm import ShardTask, SlurmRun, parse_slurm
from bench.run.jobs import suite_jobs

SUITE = """
description: four points
ceilings: false
threads: 1
sampling: {target_relative_half_width: 0.2, min_samples: 3, max_samples: 6, max_s: 0.3}
point_timeout_s: 60
dtype: fp32
points:
  - {model: tiny, workload: [tiny-image, tiny-clip, tiny-video], recipe: eager}
  - {model: tiny-joint, workload: tiny-clip, recipe: eager}
headline: {model: tiny, workload: tiny-clip, recipe: eager}
"""


@pytest.mark.slow
def test_an_array_of_two_shards_is_measured_and_merged(tmp_path):
    pytest.importorskip("submitit")
    mine = tmp_path / "mine.yaml"
    mine.write_text(SUITE)
    suite = load(Suite, str(mine))
    run = SlurmRun(
        suite=suite, device="cpu", partition="x", count=2, root=tmp_path / "out", cluster="local"
    )
    merged = run.measure()
    measured = {r.fingerprint for r in point_records(read_records(merged))}
    assert {job.fingerprint for job in suite_jobs(suite)} <= measured
    assert read_suite(merged).shard is None


def test_a_requeued_shard_goes_on_with_its_own_result(tmp_path, monkeypatch):
    asked = []

    def run(command, **how):
        asked.append(command)
        return type("Done", (), {"returncode": 0, "stdout": '{"result_dir": "there"}\n'})()

    monkeypatch.setattr("bench.run.engines.on_slurm.subprocess.run", run)
    task = ShardTask("mine.yaml", "2/3", "cpu", str(tmp_path))
    assert task() == "there"
    begun = tmp_path / "cpu" / "20260101T000000Z_mine"
    begun.mkdir(parents=True)
    (begun / "records.jsonl").write_text("{}\n")
    assert task() == "there"
    assert "--resume" not in asked[0]
    assert asked[1][-2:] == ["--resume", str(begun)]


@pytest.mark.parametrize("text", ["slurm://", "slurm://gpu", "slurm://gpu/0", "slurm:///3"])
def test_an_array_that_is_none(text):
    with pytest.raises(UserError, match="expected slurm://PARTITION/SHARDS"):
        parse_slurm(text)


def test_no_slurm_here_is_said_and_nothing_runs(here, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "out"
    code, said, err = here(
        "run", "smoke", "--on", "slurm://gpu/2", "--device", "cpu", "--out", str(out)
    )
    assert (code, said, out.exists()) == (3, "", False)
    assert err.splitlines()[-1].startswith("error: no sbatch here: ")


def test_a_partition_and_its_shards():
    assert parse_slurm("slurm://gpu/10") == ("gpu", 10)
