"""--weights: a folder that diffusers saved gives diffusers' own numbers; pickles are never read."""

import json

import pytest
import torch
from safetensors.torch import save_file

from bench.core.errors import UserError
from bench.core.load import load, load_point
from bench.core.specs.model import Model
from bench.core.specs.suite import Suite
from bench.core.user.weights import weights_of, with_weights
from bench.count.cache import counted
from bench.measure.points.build import build_calls
from models import real_weights
from support.cli import cli

diffusers = pytest.importorskip("diffusers")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def public():
    """A small Wan and its VAE, as diffusers builds them."""
    model = load(Model, "wan-tiny")
    torch.manual_seed(0)
    denoiser = diffusers.WanTransformer3DModel(**model.denoiser.config).eval()
    return denoiser, diffusers.AutoencoderKLWan(**model.vae.config).eval()


@pytest.fixture(scope="module")
def saved(public, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    public[0].save_pretrained(folder / "transformer", max_shard_size="5MB")  # several files
    public[1].save_pretrained(folder / "vae")
    return folder


def real_point(saved, model="wan-tiny", **overrides):
    weights = weights_of(str(saved), load(Model, model))
    stages = ("denoise_step", "vae_decode")
    return load_point(model, "tiny-video", "eager-fp32", overrides, stages, weights)


@pytest.mark.parametrize("model", ["wan-tiny", "wan-shaped-tiny"])
def test_the_output_is_diffusers_own(public, saved, model):
    """Through the public class, and through the own DiT of the same shape."""
    asked = real_point(saved, model)
    calls, _ = build_calls(asked, CPU)
    inputs = calls["forward"].__wrapped__.__self__.inputs
    with torch.inference_mode():
        own = calls["forward"]()
        theirs = public[0](
            hidden_states=inputs.latents,
            timestep=1000 * inputs.t,
            return_dict=False,
            encoder_hidden_states=next(iter(inputs.condition.values())),
        )[0]
    assert torch.allclose(own, theirs, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.slow
def test_the_decode_is_diffusers_own(public, saved):
    calls, _ = build_calls(real_point(saved), CPU)
    inputs = calls["forward"].__wrapped__.__self__.inputs
    with torch.inference_mode():
        theirs = public[1].decode(inputs.latents, return_dict=False)[0]
        assert torch.allclose(calls["vae_decode"](), theirs, atol=1e-5)


def test_the_point_says_which_weights_and_its_counts_are_those_of_random_ones(saved):
    real = real_point(saved)
    random = load_point("wan-tiny", "tiny-video", "eager-fp32", {}, real.stages)
    assert set(real.model.weights) == {"denoiser", "vae"}
    assert real.subject != random.subject
    assert real.as_counted.subject == random.subject
    assert counted(real) == counted(random)
    assert str(saved) not in real.model_dump_json()


def test_random_weights_leave_the_fingerprint_as_it_was():
    point = load_point("tiny", "tiny-video", "eager-fp32")
    assert "weights" not in json.dumps(point._parts)


def test_weights_whose_folder_was_not_named(saved, monkeypatch):
    asked = real_point(saved)
    monkeypatch.setattr(real_weights, "_places", {})
    with pytest.raises(UserError, match="name their folder with --weights"):
        build_calls(asked, CPU)


def test_another_shape_is_said_in_one_line(saved):
    with pytest.raises(UserError, match=r"weights .*: lacks|has shape|has unknown"):
        build_calls(real_point(saved, **{"denoiser.config.num_layers": 5}), CPU)


@pytest.mark.parametrize(
    ("name", "said"),
    [("x.bin", "is a pickle"), ("x.pt", "is a pickle"), ("x.txt", "no .safetensors file")],
)
def test_pickles_are_not_read(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(UserError, match=said):
        weights_of(str(tmp_path), load(Model, "wan-tiny"))
    with pytest.raises(UserError, match="pickle|not a safetensors"):
        weights_of(str(tmp_path / name), load(Model, "wan-tiny"))


def test_a_damaged_file_and_a_missing_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(UserError, match="not a safetensors file"):
        weights_of(str(tmp_path), load(Model, "wan-tiny"))
    with pytest.raises(UserError, match="no such folder"):
        weights_of(str(tmp_path / "none"), load(Model, "wan-tiny"))


def test_a_pipelines_folders_come_before_a_file_beside_them(tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "whole.safetensors")
    assert real_weights.parts_in(tmp_path) == {"denoiser": [tmp_path]}
    (tmp_path / "transformer").mkdir()
    (tmp_path / "vae").mkdir()
    found = {"denoiser": [tmp_path / "transformer"], "vae": [tmp_path / "vae"]}
    assert real_weights.parts_in(tmp_path) == found


def test_a_suite_of_several_models_says_whose_weights(saved):
    suite = load(Suite, "calibrate-cpu")
    with pytest.raises(UserError, match="write MODEL=DIR"):
        with_weights(suite, [str(saved)])
    with pytest.raises(UserError, match="does not measure wan-tiny"):
        with_weights(suite, [f"wan-tiny={saved}"])


@pytest.mark.slow
def test_versus_shows_real_beside_random(saved):
    asked = ("versus", "wan-tiny", "wan-tiny", "-w", "tiny-clip", "--recipe", "eager", "--json")
    how = ("--set", "recipe.dtype=fp32", "--weights-b", str(saved), "--rounds", "6")
    done = cli(*asked, *how, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [side["weights"] for side in document["sides"].values()] == ["random", "real"]
