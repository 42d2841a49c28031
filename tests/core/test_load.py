"""From names and files to specs: every mistake is one line that names the value and the nearest
match."""

from pathlib import Path

import pytest
import yaml

from bench.core.errors import EnvironmentFault, Renamed, UserError, nearest
from bench.core.errors import one_line as displayed
from bench.core.load import (
    expand,
    headline_point,
    load,
    load_point,
    parse_overrides,
    suite_points,
)
from bench.core.presets import KINDS, full_name, names, old_name
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.recipe import Recipe
from bench.core.specs.suite import Suite
from bench.core.specs.workload import Workload


@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_loads(kind):
    assert names(kind)
    for name in names(kind):
        loaded = load(KINDS[kind], name)
        expected = full_name(name, loaded.dtype) if kind == "recipes" else name
        assert loaded.name == expected


@pytest.mark.parametrize("suite", names("suites"))
def test_every_suite_can_be_run(suite):
    points = suite_points(load(Suite, suite))
    assert len({p.fingerprint for p in points}) == len(points) > 0


def one_line(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_name_has_a_near_miss():
    assert "did you mean sora-20b?" in one_line(lambda: load(Model, "sora-20"))


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "malformed YAML at line"),
        ("- 1", "expected a mapping of keys, not list"),
        ("", "expected a mapping of keys, found an empty file"),
        ("extends: nobody", "unknown workload 'nobody'"),
        ("extends: [1]", "expected a name, not"),
        ("extends: image-256\nframs: 3", "frams: unknown key; did you mean frames?"),
        ("extends: image-256\nheight: -5", "height: -5"),
        (
            "extends: image-256\nguidance: cgf",
            "guidance: 'cgf' is not one of 'none' or 'cfg'; did you mean cfg?",
        ),
        ("extends: image-256\nsteps: many", "steps: 'many'"),
        ("frames: 3", "description: missing"),
    ],
)
def test_broken_workload_files(tmp_path, text, message):
    assert message in one_line(lambda: load(Workload, write(tmp_path, text)))


def test_file_that_extends_itself(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {path}\n")
    assert "extends itself" in one_line(lambda: load(Workload, str(path)))


def test_missing_file():
    assert "cannot be read" in one_line(lambda: load(Workload, "/nowhere/mine.yaml"))


def test_own_file_extends_a_preset(tmp_path):
    path = write(tmp_path, "extends: sora-20b\ndescription: mine\ndenoiser: {depth: 2}\n")
    mine, base = load(Model, path), load(Model, "sora-20b")
    assert (mine.name, mine.denoiser.depth, mine.denoiser.width) == ("mine", 2, base.denoiser.width)


def test_set_reaches_each_part_and_a_bare_name_is_the_denoisers():
    overrides = parse_overrides(
        [
            "depth=2",
            "workload.height=1024",
            "recipe.attention=math",
            "vae.res_blocks=1",
            "model.text_encoders.0.tokens=77",
        ]
    )
    point = load_point("sora-3b", "image-512", "eager-bf16", overrides)
    assert point.model.denoiser.depth == 2
    assert point.model.vae.res_blocks == 1
    assert point.model.text_encoders[0].tokens == 77
    assert point.workload.height == 1024
    assert point.recipe.attention == "math"
    assert point.model.name == "sora-3b[depth=2,vae.res_blocks=1,text_encoders.0.tokens=77]"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("width", "write PATH=VALUE"),
        ("widht=3", "did you mean width?"),
        ("workload.fps=0", "fps"),
        ("worklaod.fps=1", "did you mean workload?"),
        ("width=[1", "not a YAML value"),
        ("width=100", "head_dim 5 (width 100 over num_heads 20): rope positions need an even one"),
        ("num_heads=7", "width 2560 is not a multiple of num_heads 7"),
        ("latent_channels=8", "no field"),
        ("in_channels=8", "denoiser.in_channels 8 is not vae.latent_channels 16"),
        (
            "workload.height=520",
            "65 latent rows do not divide into patches of 2; nearest: 64 or 66",
        ),
    ],
)
def test_bad_overrides(assignment, message):
    assert message in one_line(
        lambda: load_point("sora-3b", "image-512", "eager-bf16", parse_overrides([assignment]))
    )


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    + ["description: *a11"]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "description: mine\nframes: 9\nframes: 10",
            "line 3, column 1: key 'frames' is there twice",
        ),
        ("{a: {b: 1, b: 2}}", "key 'b' is there twice"),
        ("1: 2", "key '1' is not a word"),
        ("[a, b]: 2", "key a sequence is not a word"),
        (BOMB, "more than 20,000 values, aliases counted as what they stand for"),
        ("a: &a [*a]", "an alias within what it stands for"),
        ("a: " + "[" * 3000, "nested more than 40 deep"),
        ("a: !!python/object:os.system 1", "could not determine a constructor"),
        ("a: !!int abc", "'abc' is not an integer"),
        ("a: !!bool abc", "neither true nor false"),
        ("a: !!map x", "a mapping is expected, not a scalar"),
        ("? !!str [a]\n: b", "key a sequence is not a word"),
        ("<<: {1: 2}", "key 1 is not a word"),
        ("a: !!int [1]", "expected a scalar node"),
        ("a: !!set {b, c}", "could not determine a constructor"),
        ("a: " + "9" * 5000, "a number of 5000 characters"),
        ("a: b\0", "special characters are not allowed"),
        ("a: '" + "x" * 1_000_001 + "'", "longer than 1,000,000 characters"),
        ('extends: "a\\0/b"', "no file has such a name"),
        ("extends: image-256\nheight: 4" + "0" * 30, "height: 4"),
        ("extends: image-256\nframes: true", "frames: True: input should be a valid integer"),
        ("extends: image-256\nframes: '8'", "frames: '8': input should be a valid integer"),
        ("extends: image-256\nfps: true", "fps: True: input should be a valid number"),
        ("extends: image-256\nfps: .inf", "fps: inf"),
        ("extends: image-256\nfps: .nan", "fps: nan"),
        ("extends: image-256\nfps: 1e-320", "greater than or equal to 0.001"),
        ("extends: image-256\nframes: 10000000\nheight: 1000000\nwidth: 1000000", "1e+19 pixels"),
        ("extends: image-256\ndescription: 3", "description: 3: input should be a valid string"),
    ],
)
def test_hostile_workload_files(tmp_path, text, message):
    line = one_line(lambda: load(Workload, write(tmp_path, text)))
    assert message in line
    assert len(line) < 400


def test_a_file_that_may_not_be_read_is_the_environments_fault(tmp_path, monkeypatch):
    """By monkeypatch, since permissions stop no root."""

    def refused(self, **_):
        raise PermissionError

    path = write(tmp_path, "a: 1")
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(EnvironmentFault, match="cannot be read: permission denied"):
        load(Workload, path)


def test_dates_and_powers_of_ten_are_what_they_look_like(tmp_path):
    mine = load(Workload, write(tmp_path, "extends: image-256\ndescription: 2001-99-99\nfps: 1e1"))
    assert (mine.description, mine.fps) == ("2001-99-99", 10.0)


def test_extends_is_taken_from_the_files_own_folder_and_names_the_file_that_extends(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.yaml").write_text("extends: image-256\nsteps: 3")
    (tmp_path / "mine.yaml").write_text("extends: sub/base.yaml")
    assert load(Workload, str(tmp_path / "mine.yaml")).steps == 3
    (tmp_path / "sub" / "base.yaml").write_text("extends: gone.yaml")
    line = one_line(lambda: load(Workload, str(tmp_path / "mine.yaml")))
    assert line.startswith(
        f"workload {tmp_path}/mine.yaml: extends: workload sub/base.yaml: extends: workload"
        " gone.yaml: cannot be read"
    )
    for i in range(30):
        (tmp_path / f"f{i}.yaml").write_text(f"extends: f{i + 1}.yaml")
    assert "extends more than 20 files" in one_line(
        lambda: load(Workload, str(tmp_path / "f0.yaml"))
    )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("width=2001-99-99", "denoiser.width: '2001-99-99'"),
        (
            "width=!!int abc",
            "--set width: '!!int abc' is not a YAML value: malformed YAML at line 1",
        ),
        ("width=" + "9" * 5000, "a number of 5000 characters"),
        ("width=" + "[" * 3000, "nested more than 40 deep"),
        ("width=1" + "0" * 30, "width is 1"),
        ("width=400000000000", "at most 1,000,000"),
        ("depth=1000000000", "depth is 1000000000: it must be at least 1 and at most 1,000"),
        ("depth=true", "denoiser.depth: True: input should be a valid integer"),
        ("depth='8'", "denoiser.depth: '8': input should be a valid integer"),
        ("masked_condition=1", "input should be a valid boolean"),
        ("patch_size=[1, 2, true]", "denoiser.patch_size.2: True"),
        ("patch_size=[1, 2, 0]", "patch_size is [1, 2, 0]: each entry must be at least 1"),
        ("mlp_ratio=.inf", "mlp_ratio is inf: it must be at least 0.001 and at most 1,000"),
        ("mlp_ratio=.nan", "mlp_ratio is nan"),
        (
            "num_heads=512",
            "head_dim 5 (width 2560 over num_heads 512): rope positions need an even one",
        ),
        ("vae.in_channels=4", "in_channels is 4: it must be at least 3 and at most 3"),
        ("vae.channels=" + str([8] * 13), "at most 12"),
        ("workload.frames=1000000000001", "frames: 1000000000001"),
        ("workload.height=4000000000000", "height: 4000000000000"),
        ("workload.batch=1" + "0" * 21, "less than or equal to 100000"),
        ("frames=9", "did you mean workload.frames?"),
        ("framse=9", "did you mean workload.frames?"),
        ("dtype=fp16", "did you mean recipe.dtype?"),
        ("res_blocks=1", "did you mean vae.res_blocks?"),
        ("text_encoders=[]", "text_width 4096 with no text_encoders"),
        ("workload=3", "set a field of it: workload.description, workload.frames"),
        ("denoiser=3", "denoiser: 3"),
    ],
)
def test_hostile_overrides(assignment, message):
    line = one_line(
        lambda: load_point("sora-3b", "image-512", "eager-bf16", parse_overrides([assignment]))
    )
    assert message in line
    assert len(line) < 600


@pytest.mark.parametrize(
    "override", [{"denoiser.config.num_layers": 10**9}, {"denoiser.config.ffn_dim": float("inf")}]
)
def test_a_public_class_gets_no_endless_argument(override):
    assert "it must be at most 1" in one_line(
        lambda: load_point("wan2.1-t2v-1.3b", "480p-81f", "eager-bf16", override)
    )


SUITE = {
    "description": "one",
    "ceilings": False,
    "point_timeout_s": 9,
    "sampling": {
        "target_relative_half_width": 0.5,
        "min_samples": 3,
        "max_samples": 6,
        "max_s": 0.2,
    },
    "points": [{"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"}],
    "headline": {"model": "tiny", "workload": "tiny-image", "recipe": "eager-fp32"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"point_timeout_s": float("inf")}, "point_timeout_s: inf"),
        ({"point_timeout_s": 1e12}, "point_timeout_s: 1000000000000.0"),
        ({"ceilings": "yes please"}, "ceilings: 'yes please'"),
        ({"points": []}, "points: []: "),
        *(
            ({"points": [{**SUITE["points"][0], key: []}]}, f"points.0.{key}: ")
            for key in ("model", "stages")
        ),
        (
            {"points": [{**SUITE["points"][0], "recipe": "a\0/b"}]},
            "points.0 (tiny, tiny-image, a\\x00/b): ",
        ),
        (
            {"points": [{**SUITE["points"][0], "set": {"denoiser.widht": 3}}]},
            (
                "suite mine, points.0 (tiny, tiny-image, eager-fp32): model tiny: --set"
                " denoiser.widht: no field 'widht'; did you "
            ),
        ),
        (
            {"headline": {**SUITE["headline"], "model": "tny"}},
            "suite mine, headline: unknown model 'tny'; did you mean tiny?",
        ),
    ],
)
def test_hostile_suites(tmp_path, change, message):
    path = write(tmp_path, yaml.safe_dump({**SUITE, **change}))

    def both():
        suite = load(Suite, path)
        suite_points(suite)
        headline_point(suite)

    with pytest.raises(UserError) as caught:
        both()
    assert message in displayed(str(caught.value))


def test_a_suite_sets_what_the_command_line_can(tmp_path):
    entry = {
        **SUITE["points"][0],
        "set": {"denoiser.patch_size": [1, 4, 4], "denoiser.rope_axes": None},
    }
    (point,) = suite_points(
        load(Suite, write(tmp_path, yaml.safe_dump({**SUITE, "points": [entry]})))
    )
    assert point.model.denoiser.patch_size == (1, 4, 4)


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
