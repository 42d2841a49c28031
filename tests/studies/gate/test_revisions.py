"""Two git revisions of a user's repository: checked out, timed in turns, and cleaned away."""

import json
import os
import subprocess
from math import exp

import pytest

from bench.core.errors import UserError
from bench.measure.turns.turns import Asked, Side, take_turns
from bench.studies.compare.revisions import StepChange, checkout, is_revision
from support.cli import cli
from support.paths import OWN_CLASS, write_files

GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@a",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@a",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
POINT = "bench/my-dit.yaml:tiny-clip:eager-fp32"


def git(folder, *words):
    env = {**os.environ, **GIT}
    done = subprocess.run(["git", *words], cwd=folder, env=env, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Two commits: the second has twice the blocks."""
    folder = tmp_path_factory.mktemp("theirs")
    write_files(OWN_CLASS, folder / "bench")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    yaml = folder / "bench" / "my-dit.yaml"
    yaml.write_text(yaml.read_text().replace("depth: 4", "depth: 8"))
    git(folder, "commit", "-qam", "two")
    return folder


def test_a_revision_lies_in_a_worktree_while_it_is_needed(repository, monkeypatch):
    monkeypatch.chdir(repository / "bench")
    with checkout("HEAD~1") as before, checkout(None) as here:
        assert "depth: 4" in (before.folder / "my-dit.yaml").read_text()
        assert "depth: 8" in (here.folder / "my-dit.yaml").read_text()
        assert before.code is None  # this package is the installed one on both sides
        there = before.folder
    assert not there.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_the_worktree_goes_where_something_fails_within(repository, monkeypatch):
    monkeypatch.chdir(repository)
    with pytest.raises(RuntimeError, match="within"), checkout("HEAD") as there:
        raise RuntimeError("within")
    assert not there.folder.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("name", ["no-such", "--help", "-n", "HEAD~99"])
def test_what_is_no_revision_is_one_line(repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    assert not is_revision(name)
    with pytest.raises(UserError, match="git rev-parse") as caught, checkout(name):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_twice_the_blocks_are_slower_and_exit_with_1(repository):
    asked = ("compare", "HEAD~1", "HEAD", "--point", POINT, "--device", "cpu")
    done = cli(*asked, "--max-time", "20s", "--unclear", "pass", "--json", cwd=repository)
    assert done.returncode == 1, done.stderr
    (step,) = json.loads(done.stdout)["steps"]
    assert step["verdict"] == "SLOWER"
    assert step["flops_b"] / step["flops_a"] == pytest.approx(2.0, abs=0.02)
    assert step["ratio"] > 1.3


@pytest.mark.slow
def test_check_holds_counts_and_step_times(repository, tmp_path):
    baseline, said = tmp_path / "b.json", tmp_path / "said.md"
    cli("check", str(baseline), "--add", POINT, cwd=repository)
    asked = ("check", str(baseline), "--against", "HEAD~1", "--device", "cpu")
    done = cli(*asked, "--max-time", "20s", "--markdown", str(said), cwd=repository)
    assert done.returncode == 1, done.stderr
    assert "0 changes, 1 of 1 steps fail" in done.stdout
    assert "denoise_step" in done.stdout
    assert "FAIL" in said.read_text()
    equal = cli("check", str(baseline), cwd=repository)
    assert equal.returncode == 0


@pytest.mark.slow
def test_a_pair_of_processes_takes_turns(repository):
    """Twice the blocks take about twice as long, in one pair."""
    here = repository / "bench"
    asked = Asked("my-dit.yaml", "tiny-clip", "eager-fp32", device="cpu")
    shallow = Asked(**vars(asked) | {"set": {"denoiser.config.depth": 4}})
    with Side("a", here, shallow, count=True) as a, Side("b", here, asked, count=True) as b:
        (few, _), (many, device) = a.built(), b.built()
        block = take_turns([a.visit, b.visit], rounds=2)
    assert device == "cpu"
    assert many / few == pytest.approx(2.0, abs=0.02)
    assert 1.3 < exp(block.log_ratio) < 3.0


@pytest.mark.slow
def test_a_point_that_a_side_cannot_build_is_one_line(repository):
    asked = ("compare", "HEAD~1", "HEAD", "--device", "cpu", "--point")
    missing = cli(*asked, "none.yaml:tiny-clip", cwd=repository)
    assert missing.returncode == 2
    assert missing.stderr.strip().endswith("HEAD~1: it has no none.yaml")
    wrong = cli(*asked, "bench/my-dit.yaml:tiny-clop", cwd=repository)
    assert wrong.returncode == 2
    assert "HEAD~1: unknown workload 'tiny-clop'; did you mean tiny-clip?" in wrong.stderr
    none = cli("compare", "HEAD~1", "HEAD", cwd=repository)
    assert none.returncode == 2
    assert "Name them with --point" in none.stderr


def step(verdict, **fields):
    numbers = {"a_s": 1.0, "b_s": 1.14, "ratio": 1.14, "low": 1.12, "high": 1.16, "pairs": 5}
    work = {"flops_a": 10, "flops_b": 10, "threshold": 0.05}
    return StepChange(
        point="m w r", stage="denoise_step", verdict=verdict, **numbers | work | fields
    )


@pytest.mark.parametrize(
    ("verdict", "unclear", "fails"),
    [
        ("SLOWER", "pass", True),
        ("UNCLEAR", "fail", True),
        ("UNCLEAR", "pass", False),
        ("SAME", "fail", False),
        ("FASTER", "fail", False),
    ],
)
def test_what_fails_the_gate(verdict, unclear, fails):
    from bench.commands.parts.revisions import failed

    assert failed(step(verdict), unclear) == fails


def test_the_words_of_a_step():
    from bench.report.tables.comparison import step_words

    assert step_words(step("SLOWER"), True) == "m w r: denoise_step 1.14 (1.12 to 1.16) FAIL"
    assert step_words(step("UNCLEAR"), False).endswith("ok, UNCLEAR")
