"""What `versus` times, and what it says before it times anything."""

import sys

import pytest

from bench.commands.studies.versus import _stage
from bench.core.errors import UserError


@pytest.mark.parametrize(
    ("asked", "recipes", "stage"),
    [
        (None, ("eager", "eager"), "denoise_step"),
        (None, ("eager", "cache-whole-step"), "trajectory"),
        (None, ("draft-fp32", "eager"), "trajectory"),
        ("denoise_step", ("eager", "cache-whole-step"), "denoise_step"),
    ],
)
def test_a_cache_is_timed_by_the_whole_trajectory(asked, recipes, stage):
    assert _stage(asked, *recipes) == stage


def test_a_stage_that_is_none():
    with pytest.raises(UserError, match="did you mean trajectory"):
        _stage("trajectori", "eager", "eager")


@pytest.mark.slow
def test_a_trajectory_is_counted_and_timed(here):
    """It was a KeyError once."""
    cached = ("--recipe", "eager", "--recipe-b", "cache-whole-step", "--set", "recipe.dtype=fp32")
    code, out, err = here(
        *("versus", "tiny", "tiny", "-w", "tiny-image", *cached),
        *("--device", "cpu", "--rounds", "6", "--max-time", "1s"),
    )
    assert code == 0, err
    assert "trajectory of tiny-image" in out
    assert "SLOWER" in out


def test_a_missing_package_is_named_with_the_line_that_brings_it(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    code, _, err = here(
        *("versus", "tiny", "tiny", "-w", "tiny-image", "--recipe", "eager"),
        *("--recipe-b", "int8-weight", "--set", "recipe.dtype=fp32", "--device", "cpu"),
    )
    assert code == 3
    assert "needs torchao (pip install 'ldt-bench[quantise]')" in err
    assert err.count("\n") == 1
