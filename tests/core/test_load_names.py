"""Names: recipes by their old ones, dtypes of a suite, near misses, cards."""

import pytest
import yaml

from bench.core.errors import Renamed, nearest
from bench.core.errors import one_line as displayed
from bench.core.load import (
    expand,
    load,
    load_point,
    parse_overrides,
    suite_points,
)
from bench.core.presets import names, old_name
from bench.core.specs.gpu import Gpu
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from support.load import SUITE, one_line, write


@pytest.mark.parametrize(
    ("old", "preset", "dtype"),
    [
        ("steps-4-fp32", "steps-4", "fp32"),
        ("steps-4-bf16", "steps-4", "bf16"),
        ("eager-fp32", "eager", "fp32"),
        ("eager-tf32", "eager", "tf32"),
        ("eager-fp32-math", "eager-math", "fp32"),
        ("eager-bf16-cudnn-chunks", "eager-cudnn-chunks", "bf16"),
    ],
)
def test_a_recipes_old_name_is_the_preset_in_a_dtype(old, preset, dtype):
    """Records keep the old name, whichever way the recipe was asked for."""
    by_old_name = load(Recipe, old)
    assert by_old_name == load(Recipe, preset, {"dtype": dtype})
    assert (by_old_name.name, by_old_name.dtype) == (old, dtype)
    assert (
        old_name(old)
        == f"recipe {old} is {preset} with dtype {dtype} now (--set recipe.dtype={dtype})"
    )
    assert old_name(preset) is None


@pytest.mark.parametrize("name", ["draft-fp32", "eager-bf16-chunks", "fast-from-fp32"])
def test_a_recipe_whose_file_says_a_dtype_keeps_its_name(name):
    assert load(Recipe, name).name == name
    assert old_name(name) is None


@pytest.mark.parametrize("name", ["fp32-steps-4", "eager-math-fp32", "steps-4-fp64"])
def test_a_dtype_in_another_place_of_the_name_is_unknown(name):
    assert f"unknown recipe '{name}'; did you mean " in one_line(lambda: load(Recipe, name))


def suite_of(tmp_path, change, **entry):
    points = [SUITE["points"][0] | entry]
    headline = SUITE["headline"] | {"recipe": "eager"}
    return write(
        tmp_path, yaml.safe_dump(SUITE | {"points": points, "headline": headline} | change)
    )


def test_a_suites_dtypes_become_part_of_its_recipes_names(tmp_path):
    path = suite_of(
        tmp_path,
        {"dtype": "fp32"},
        recipe=["eager", "steps-4"],
        dtype=["bf16", "fp32"],
        baseline="eager",
    )
    suite = load(Suite, path)
    assert suite.points[0].recipe == ("eager-bf16", "eager-fp32", "steps-4-bf16", "steps-4-fp32")
    assert (suite.points[0].baseline, suite.headline.recipe) == ("eager-fp32", "eager-fp32")
    points = expand(suite)
    assert [p.point.recipe.name for p in points] == list(suite.points[0].recipe)
    assert [p.baseline is None for p in points] == [False, True, False, False]
    plain = load(Suite, suite_of(tmp_path, {}, recipe="eager"))
    assert (plain.points[0].recipe, plain.headline.recipe) == (("eager-bf16",), "eager-bf16")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"recipe": "eager", "dtype": "fp64"}, "points.0.dtype.0: 'fp64' is not one of 'fp32', "),
        (
            {"recipe": "draft-fp32", "dtype": "bf16"},
            "points.0.dtype: recipe draft-fp32 has dtype fp32, not bf16",
        ),
        ({"recipe": "my.yaml", "dtype": "bf16"}, "'my.yaml' is a file; write the dtype into it"),
        ({"recipe": "egar", "dtype": "bf16"}, "unknown recipe 'egar'; did you mean eager?"),
    ],
)
def test_a_dtype_that_a_suites_recipe_cannot_have(tmp_path, entry, message):
    assert message in one_line(lambda: suite_points(load(Suite, suite_of(tmp_path, {}, **entry))))


def test_a_users_yaml_with_an_old_name_is_read_with_a_note(tmp_path):
    with pytest.warns(Renamed, match="recipe eager-fp32 is eager with dtype fp32 now"):
        (point,) = suite_points(load(Suite, suite_of(tmp_path, {}, recipe="eager-fp32")))
    assert point == load_point("tiny", "tiny-image", "eager", {"recipe.dtype": "fp32"})
    with pytest.warns(Renamed):
        mine = load(Recipe, write(tmp_path, "extends: steps-4-fp32\nsteps: 5"))
    assert (mine.name, mine.dtype, mine.steps) == ("mine", "fp32", 5)


def test_a_name_that_begins_several_of_another_part_offers_them_all():
    line = one_line(
        lambda: load_point("tiny", "tiny-image", "eager", parse_overrides(["workload.text_=1"]))
    )
    assert "did you mean denoiser.text_width or denoiser.text_tokens?" in line


def test_nearest_minds_no_case_and_a_message_is_one_line():
    assert "did you mean models?" in one_line(lambda: names("MODELS"))
    assert displayed("a\nb\x1b[0m") == "a\\nb\\x1b[0m"


def test_fingerprint_ignores_names_and_sees_shapes(tmp_path):
    path = write(tmp_path, "extends: tiny\ndescription: the same by another name\nsource: here\n")
    base = load_point("tiny", "tiny-clip", "eager-fp32")
    assert load_point(path, "tiny-clip", "eager-fp32").fingerprint == base.fingerprint
    assert (
        load_point("tiny", "tiny-clip", "eager-fp32", {"depth": 2}).fingerprint != base.fingerprint
    )
    assert load_point("tiny", "tiny-clip", "eager-bf16").fingerprint != base.fingerprint


def test_every_gpu_figure_has_a_source_and_h100_is_what_the_pencil_divides_by():
    for name in names("gpus"):
        gpu = load(Gpu, name)
        assert gpu.source
        assert (
            gpu.price_usd_per_hour is None
            or gpu.price_usd_per_hour.low <= gpu.price_usd_per_hour.high
        )
    assert load(Gpu, "h100-sxm").peak_flops_per_s["bf16"] == 989.4e12


def test_device_names_are_claimed_once():
    listed = [d for name in names("gpus") for d in load(Gpu, name).device_names]
    assert len(set(listed)) == len(listed)


def test_a_name_begun_is_nearer_than_one_that_looks_alike():
    assert (
        nearest("h100", ["h200", "h100-pcie", "h100-sxm"])
        == "; did you mean h100-pcie or h100-sxm?"
    )
    assert nearest("h10", ["h200"]) == "; did you mean h200?"
    assert nearest("", ["h200"]) == ""
