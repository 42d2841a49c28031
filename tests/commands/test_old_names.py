"""Names of commands and recipes that changed still answer, and say the new one."""

import pytest

from bench.cli import COMMANDS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["ceilings", "--device", "cpd"], "doctor --ceilings"),
        (["check-timer", "tny"], "doctor --timer"),
        (["holdout", "nowhere", "nowhere"], "calibrate CALIBRATION --against RESULT"),
        (["plan", "--for", "tiny", "-w", "tiny-clip", "--gpu", "h100"], "run --choose-for MODEL"),
    ],
)
def test_an_old_command_still_runs_and_says_its_new_name(here, old, new):
    """Here as far as its first mistake; tests/commands/test_contract.py runs them to the end."""
    code, out, err = here(*old)
    note, error = err.splitlines()
    assert (code, out) == (2, "")
    assert note == f"note: `ldt-bench {old[0]}` is `ldt-bench {new}` now"
    assert error.startswith("error: ")
    assert old[0] not in COMMANDS


def test_a_recipes_old_name_runs_with_a_note(here):
    count = ["count", "tiny", "-w", "tiny-clip", "--json", "--recipe"]
    code, out, err = here(*count, "eager-fp32")
    assert (code, err) == (
        0,
        "note: recipe eager-fp32 is eager with dtype fp32 now (--set recipe.dtype=fp32)\n",
    )
    assert here(*count, "eager", "--set", "recipe.dtype=fp32") == (0, out, "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["doctor", "--ceilings", "--timer"], "--ceilings and --timer: one of the two alone"),
        (["doctor", "--rounds", "7"], "--rounds goes with --timer"),
        (["doctor", "--timer", "--expect", "h200"], "--expect goes with neither --ceilings nor"),
        (["calibrate", "--against", "a"], "calibrate takes a result directory, or --from TABLE"),
        (["calibrate", "a", "--transfer"], "--transfer goes with --against"),
        (["calibrate", "a", "b", "--against", "c"], "--against goes with one result directory"),
        (["run", "smoke", "--write", "a.yaml"], "--write goes with --choose-for"),
        (["run", "--choose-for", "tiny"], "--choose-for needs --workload"),
    ],
)
def test_an_option_without_the_one_it_belongs_to(here, args, said):
    code, out, err = here(*args)
    assert (code, out) == (2, "")
    assert f"error: {said}" in err
