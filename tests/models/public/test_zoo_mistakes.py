"""What a public model cannot take, and weights that cannot be read, are one line."""

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from bench.core.errors import UserError
from bench.core.load import load_point
from bench.count.point import META
from models.pipeline import build_pipeline
from models.public import zoo
from support.models.zoo_reduced import reduced

pytestmark = pytest.mark.usefixtures("one_thread")


CPU, FP32 = torch.device("cpu"), torch.float32


@pytest.mark.parametrize(
    ("model", "workload", "change", "message"),
    [
        (
            "ltx-video-2b",
            "512x704-161f",
            {"workload.frames": 160},
            "8 k + 1 frames; nearest: 153 or 161",
        ),
        (
            "mochi-1",
            "480x848-163f",
            {"workload.frames": 164},
            "6 k + 1 frames; nearest: 163 or 169",
        ),
        (
            "wan2.1-t2v-14b",
            "720p-81f",
            {"workload.frames": 80},
            "4 k + 1 frames; nearest: 77 or 81",
        ),
        (
            "wan2.1-t2v-14b",
            "720p-81f",
            {"workload.height": 725},
            "height 725 is not a positive multiple of the VAE's 8",
        ),
        (
            "wan2.1-t2v-14b",
            "720p-81f",
            {"workload.height": 728},
            "91 latent rows do not divide into patches of 2",
        ),
        (
            "allegro",
            "720p-88f",
            {"workload.width": 1288},
            "width 1288: this VAE's tiles cover 320 + 240 k; nearest: 1280",
        ),
        (
            "allegro",
            "720p-88f",
            {"workload.frames": 16},
            "frames 16: this VAE's tiles cover 24 + 16 k",
        ),
        (
            "latte",
            "512x512-16f",
            {"workload.frames": 15},
            "15 latent frames: this model takes 1 or 16",
        ),
        (
            "dit-xl-2-diffusers",
            "image-256",
            {"workload.width": 512},
            "32 x 64 latents: this model takes square ones only",
        ),
        (
            "dit-xl-2-diffusers",
            "image-256",
            {"workload.frames": 2},
            "2 latent frames: this model takes 1",
        ),
    ],
)
def test_what_a_model_cannot_take_is_one_line(model, workload, change, message):
    with pytest.raises(UserError) as error:
        load_point(model, workload, "eager-bf16", change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diffusers": "UNet2DModel"}, "no adapter for diffusers' UNet2DModel"),
        ({"config": {"depth": 3}}, "WanTransformer3DModel: .*unexpected keyword argument 'depth'"),
    ],
)
def test_a_class_or_config_that_does_not_exist_is_one_line(change, message):
    spec = dataclasses.replace(reduced("wan2.1-t2v-1.3b")[0].denoiser, **change)
    with pytest.raises(ValueError, match=message):
        zoo.build(spec, META, FP32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A reduced pipeline with two experts as save_pretrained writes it; the first expert in
    shards."""
    model, _ = reduced("wan2.2-t2v-a14b")
    folder = tmp_path_factory.mktemp("weights")
    pipeline = build_pipeline(
        model.denoiser,
        model.vae,
        (),
        device=CPU,
        dtype=FP32,
        seed=1,
        stages=("forward", "vae_decode"),
    )
    first, second = pipeline.denoiser.experts
    first.save_pretrained(folder / "transformer", max_shard_size="20KB")
    second.save_pretrained(folder / "transformer_2")
    pipeline.vae.model.save_pretrained(folder / "vae")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    return folder, pipeline


@pytest.fixture
def fresh():
    model, _ = reduced("wan2.2-t2v-a14b")
    return build_pipeline(
        model.denoiser,
        model.vae,
        (),
        device=CPU,
        dtype=FP32,
        seed=2,
        stages=("forward", "vae_decode"),
    )


def test_weights_of_a_folder_are_those_that_were_saved(saved, fresh):
    folder, pipeline = saved
    fresh.denoiser.load(folder)
    fresh.vae.load(folder)
    for loaded, original in ((fresh.denoiser, pipeline.denoiser), (fresh.vae, pipeline.vae)):
        assert all(
            torch.equal(a, b)
            for a, b in zip(loaded.parameters(), original.parameters(), strict=True)
        )


def write_index(folder, file):
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": file}})
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: None, "no .safetensors file"),
        (
            lambda f: (f / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({})),
            "is a pickle, which may run code",
        ),
        (
            lambda f: (f / "diffusion_pytorch_model.safetensors").write_bytes(b"not one"),
            "not a safetensors file",
        ),
        (
            lambda f: save_file({"x": torch.zeros(1)}, f / "diffusion_pytorch_model.safetensors"),
            "lacks .* more",
        ),
        (
            lambda f: write_index(f, "diffusion_pytorch_model-1.safetensors"),
            "no such file, though the index names it",
        ),
        (
            lambda f: write_index(f, "../vae/x.safetensors"),
            "is not a safetensors file of this folder",
        ),
        (lambda f: write_index(f, "x.bin"), "is not a safetensors file of this folder"),
        (
            lambda f: (f / "diffusion_pytorch_model.safetensors.index.json").write_text("[]"),
            "not an index",
        ),
    ],
)
def test_weights_that_cannot_be_read_are_one_line(tmp_path, fresh, damage, message):
    folder = tmp_path / "transformer"
    folder.mkdir()
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        fresh.denoiser.load(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_leave_the_model_as_it_was(tmp_path, saved, fresh):
    _, pipeline = saved
    state = dict(pipeline.denoiser.experts[0].state_dict())
    for change, message in (
        ({"patch_embedding.bias": torch.zeros(3)}, r"has shape \(3,\), the model \(24,\)"),
        ({"surplus": torch.zeros(3)}, "has unknown surplus"),
    ):
        folder = tmp_path / "transformer"
        folder.mkdir(exist_ok=True)
        save_file({**state, **change}, folder / "diffusion_pytorch_model.safetensors")
        before = [p.clone() for p in fresh.denoiser.parameters()]
        with pytest.raises(ValueError, match=message):
            fresh.denoiser.load(folder.parent)
        assert all(
            torch.equal(a, b) for a, b in zip(before, fresh.denoiser.parameters(), strict=True)
        )
    with pytest.raises(ValueError, match="no such folder"):
        fresh.denoiser.load(tmp_path / "nowhere")


def test_weights_need_a_device(saved):
    with pytest.raises(ValueError, match="on meta"):
        zoo.build(reduced("wan2.2-t2v-a14b")[0].denoiser, META, FP32).load(saved[0])
