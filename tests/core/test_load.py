"""From names and files to specs: every mistake is one line that names the value and the nearest
match."""

from pathlib import Path

import pytest

from bench.core.errors import EnvironmentFault
from bench.core.load import (
    load,
    load_point,
    parse_overrides,
    suite_points,
)
from bench.core.presets import KINDS, full_name, names
from bench.core.specs.model import Model
from bench.core.specs.suite import Suite
from bench.core.specs.workload import Workload
from support.load import one_line, write


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


def test_unknown_name_has_a_near_miss():
    assert "did you mean sora-20b?" in one_line(lambda: load(Model, "sora-20"))


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
        ("width", "write NAME=VALUE"),
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
        ("a: !!map x", "expected a mapping, found a scalar"),
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
