"""From names and files to specs: every mistake is one line that names the value and the nearest match."""

import pytest

from bench.core.errors import UserError
from bench.core.load import KINDS, load, load_point, names, parse_overrides, suite_points
from bench.core.spec import Gpu, Model, Suite, Workload


@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_loads(kind):
    assert names(kind)
    for name in names(kind):
        assert load(KINDS[kind], name).name == name


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


@pytest.mark.parametrize(("text", "message"), [
    ("a: [1, 2", "malformed YAML at line"),
    ("- 1", "a mapping of keys is expected, not list"),
    ("", "a mapping of keys is expected"),
    ("extends: nobody", "unknown workload 'nobody'"),
    ("extends: [1]", "a name is expected"),
    ("extends: image-256\nframs: 3", "frams: unknown key; did you mean frames?"),
    ("extends: image-256\nheight: -5", "height: -5"),
    ("extends: image-256\nguidance: cgf", "guidance: 'cgf' is not one of 'none' or 'cfg'; did you mean cfg?"),
    ("extends: image-256\nsteps: many", "steps: 'many'"),
    ("frames: 3", "description: missing"),
])
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
    overrides = parse_overrides(["depth=2", "workload.height=1024", "recipe.attention=math", "vae.res_blocks=1",
                                 "model.text_encoders.0.tokens=77"])
    point = load_point("sora-3b", "image-512", "eager-bf16", overrides)
    assert point.model.denoiser.depth == 2
    assert point.model.vae.res_blocks == 1
    assert point.model.text_encoders[0].tokens == 77
    assert point.workload.height == 1024
    assert point.recipe.attention == "math"
    assert point.model.name == "sora-3b[depth=2,vae.res_blocks=1,text_encoders.0.tokens=77]"


@pytest.mark.parametrize(("assignment", "message"), [
    ("width", "write PATH=VALUE"),
    ("widht=3", "did you mean width?"),
    ("workload.fps=0", "fps"),
    ("worklaod.fps=1", "did you mean workload?"),
    ("width=[1", "not a YAML value"),
    ("width=100", "rope_axes"),
    ("num_heads=7", "width 2560 is not a multiple of num_heads 7"),
    ("latent_channels=8", "no field"),
    ("in_channels=8", "denoiser.in_channels 8 is not vae.latent_channels 16"),
    ("workload.height=520", "65 latent rows do not divide into patches of 2; nearest: 64 or 66"),
])
def test_bad_overrides(assignment, message):
    assert message in one_line(
        lambda: load_point("sora-3b", "image-512", "eager-bf16", parse_overrides([assignment])))


def test_fingerprint_ignores_names_and_sees_shapes(tmp_path):
    path = write(tmp_path, "extends: tiny\ndescription: the same by another name\nsource: here\n")
    base = load_point("tiny", "tiny-clip", "eager-fp32")
    assert load_point(path, "tiny-clip", "eager-fp32").fingerprint == base.fingerprint
    assert load_point("tiny", "tiny-clip", "eager-fp32", {"depth": 2}).fingerprint != base.fingerprint
    assert load_point("tiny", "tiny-clip", "eager-bf16").fingerprint != base.fingerprint


def test_every_gpu_figure_has_a_source_and_h100_is_what_the_pencil_divides_by():
    for name in names("gpus"):
        gpu = load(Gpu, name)
        assert gpu.source
        assert gpu.price_usd_per_hour is None or gpu.price_usd_per_hour.low <= gpu.price_usd_per_hour.high
    assert load(Gpu, "h100-sxm").peak_flops_per_s["bf16"] == 989.4e12


def test_device_names_are_claimed_once():
    listed = [d for name in names("gpus") for d in load(Gpu, name).device_names]
    assert len(set(listed)) == len(listed)
