"""Public models: counted on meta at their public shapes, and run for real, reduced, through the
same adapters."""

import csv
import dataclasses
import json
import pickle
from functools import cache

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import UserError
from bench.core.load import load, load_point, names
from bench.core.specs.model import Model
from bench.count.point import META, count_model
from bench.count.trace import Trace, trace
from models.pipeline import VideoPipeline, build_pipeline
from models.public import zoo
from models.spec import DiffusersDenoiser
from models.stages import StageRequest, example_inputs, stage_calls
from support.paths import GOLDEN, ROOT
from support.zoo_reduced import REDUCED, reduced

pytestmark = pytest.mark.usefixtures("one_thread")
CPU, FP32 = torch.device("cpu"), torch.float32


def golden() -> list[dict[str, str]]:
    lines = [
        line for line in (GOLDEN / "zoo.csv").read_text().splitlines() if not line.startswith("#")
    ]
    return list(csv.DictReader(lines))


@cache
def forward(name: str, workload: str, *overrides: tuple[str, int]) -> tuple[int, int, Trace]:
    """Parameters, tokens, and one forward on meta, of the denoiser alone."""
    point = load_point(name, workload, "eager-bf16", dict(overrides))
    denoiser = zoo.build(point.model.denoiser, META, torch.bfloat16)
    pipeline = VideoPipeline(denoiser, torch.nn.Module(), [])
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=point.model.denoiser.in_channels,
        device=META,
        dtype=torch.bfloat16,
        latent_shape=point.model.latent_shape(point.workload),
        seed=0,
    )
    denoiser.prepare(inputs.latents)
    traced = trace(lambda: pipeline.predict(inputs.latents, inputs.t, inputs.condition))
    return sum(p.numel() for p in denoiser.parameters()), point.model.tokens(point.workload), traced


def flops(traced: Trace) -> int:
    return sum(traced.flops_by_class().values())


@pytest.mark.parametrize("row", golden(), ids=lambda row: row["model"])
def test_public_shape(row):
    params, tokens, traced = forward(row["model"], row["workload"])
    assert load(Model, row["model"]).denoiser.published == row["published"]
    assert (params, tokens, flops(traced)) == (
        int(row["denoiser_params"]),
        int(row["tokens"]),
        int(row["forward_flops"]),
    )
    assert traced.torch_flops == flops(traced)


def test_every_public_model_has_a_golden_row_and_a_reduced_copy():
    loaded = {name: load(Model, name).denoiser for name in names("models")}
    public = {
        name
        for name, d in loaded.items()
        if isinstance(d, DiffusersDenoiser) and d.published != "none"
    }
    assert public == {row["model"] for row in golden()} == set(REDUCED)
    assert len(public) == 20


@pytest.mark.parametrize("row", golden(), ids=lambda row: row["model"])
def test_the_documented_table_is_the_golden_one(row):
    (line,) = [
        x
        for x in (ROOT / "docs" / "models.md").read_text().splitlines()
        if x.startswith(f"| `{row['model']}` |")
    ]
    for cell in (
        f"{int(row['denoiser_params']) / 1e9:.3f} B",
        row["published"],
        f"`{row['workload']}`",
        f"{int(row['tokens']):,}",
        f"{int(row['forward_flops']) / 1e12:,.1f} T",
    ):
        assert f"| {cell} |" in line


def test_wan_1_3b_to_the_last_flop():
    _, n, traced = forward("wan2.1-t2v-1.3b", "480p-81f")
    d, ffn, text, depth = 1536, 8960, 512, 30
    linear = (
        depth
        * (
            4 * n * d * d + 2 * n * d * d + 2 * text * d * d + 2 * n * d * ffn
        )  # self, cross q o, cross k v, MLP
        + 256 * d
        + d * d
        + 6 * d * d
        + text * (4096 * d + d * d)
        + n * d * 64  # time, its six vectors, text, out
    )
    attention = depth * 2 * (n * n + n * text) * d  # QK^T and AV; self and cross
    assert traced.flops_by_class() == {
        "linear": 2 * linear,
        "attention": 2 * attention,
        "conv": 2 * n * 64 * d,
        "other": 0,
    }


def test_cogvideox_2b_to_the_last_flop():
    _, n, traced = forward("cogvideox-2b", "480x720-49f")
    d, text, depth, time = 1920, 226, 30, 512
    s = n + text
    linear = (
        depth * (12 * s * d * d + 2 * time * 6 * d)  # QKV, projection, MLP; two adaLNs
        + text * 4096 * d
        + d * time
        + time * time
        + time * 2 * d
        + n * d * 64
    )  # text, time, final adaLN, out
    assert traced.flops_by_class() == {
        "linear": 2 * linear,
        "attention": 2 * depth * 2 * s * s * d,
        "conv": 2 * n * 64 * d,
        "other": 0,
    }


def test_sanas_linear_attention_is_a_product_of_another_sort():
    """V K^T and its product with Q, 112 x 112 a head, and the normaliser: plain products, not SDPA,
    linear in tokens."""
    _, n, traced = forward("sana-video-2b", "480p-81f")
    assert traced.flops_by_class()["other"] == 2 * 20 * 20 * (2 * 112 * 112 * n + 112 * n)


def test_diffusers_dit_embeds_time_and_label_in_every_block():
    params, _, _ = forward("dit-xl-2-diffusers", "image-256")
    d, embedders = 1152, 257 + 1153 + 1001  # two time layers with bias; 1,000 classes and none
    assert params == 674_834_720 + 27 * d * embedders  # beside the one that our own DiT has


# --- totals as published, each under the convention its authors used (docs/models.md) ---


def test_published_wan_1_3b_counts_linear_layers_only():
    """8.21 P FLOPs a video of 100 forwards: MagCache, arXiv 2506.09045, Table 1.  With attention it
    would be 28.3."""
    _, _, traced = forward("wan2.1-t2v-1.3b", "480p-81f")
    assert 100 * traced.flops_by_class()["linear"] == pytest.approx(8.21e15, rel=0.01)
    assert 100 * flops(traced) == pytest.approx(28.30e15, rel=0.01)


def test_published_cogvideox_2b_counts_multiply_accumulates():
    """6.03 P MACs a video of 100 forwards, attention included: FasterCache, Table 1."""
    _, _, traced = forward("cogvideox-2b", "480x720-49f")
    assert 100 * flops(traced) / 2 == pytest.approx(6.03e15, rel=0.01)


def test_published_wan_14b_counts_everything():
    """560 PFLOPs a video of 69 frames of 1280x768, 100 forwards: Radial Attention, arXiv
    2506.19852, Table 1."""
    _, tokens, traced = forward(
        "wan2.1-t2v-14b", "720p-81f", ("workload.frames", 69), ("workload.height", 768)
    )
    assert tokens == 69_120
    assert 100 * flops(traced) == pytest.approx(560e15, rel=0.01)


# --- reduced copies, for real ---


def reduced_calls(model, workload, device, stages):
    """The pipeline on `device` and its stages as calls."""
    pipeline = build_pipeline(
        model.denoiser, model.vae, (), device=device, dtype=FP32, seed=0, stages=stages
    )
    inputs = example_inputs(
        pipeline,
        batch=workload.batch,
        channels=model.denoiser.in_channels,
        device=device,
        dtype=FP32,
        latent_shape=model.latent_shape(workload),
        seed=0,
    )
    pipeline.denoiser.prepare(inputs.latents)
    request = StageRequest(
        frames=workload.frames,
        height=workload.height,
        width=workload.width,
        guided=False,
        steps=4,
        seed=0,
    )
    return stage_calls(pipeline, inputs, request)


def check_stages(name, shapes):
    """Stage by stage: both counters agree on meta; the real run is finite, of the right shape, and
    the same work."""
    model, workload = reduced(name)
    real, meta = (reduced_calls(model, workload, device, tuple(shapes)) for device in (CPU, META))
    for stage, shape in shapes.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            out = real[stage]()
        assert out.shape == (workload.batch, *shape)
        assert torch.isfinite(out).all()
        assert out.std() > 0.1  # neither zero nor the identity of a zero-initialised output
        traced = trace(meta[stage])
        assert traced.torch_flops == flops(traced)
        ran = sum(
            f for op, f in counter.get_flop_counts()["Global"].items() if "attention" not in str(op)
        )
        # torch sees no FLOPs in fused attention on a CPU; where it is not fused it sees them as
        # products
        assert ran in (flops(traced), flops(traced) - traced.flops_by_class()["attention"])


@pytest.mark.parametrize("name", REDUCED)
def test_reduced_denoiser_runs_what_is_counted(name):
    model, workload = reduced(name)
    check_stages(name, {"forward": (model.denoiser.in_channels, *model.latent_shape(workload))})


VAES = {
    str((reduced(name)[0].vae, reduced(name)[1])): name for name in reversed(REDUCED)
}  # each VAE once


@pytest.mark.parametrize("name", VAES.values())
def test_reduced_vae_runs_what_is_counted(name):
    model, workload = reduced(name)
    check_stages(
        name,
        {
            "vae_decode": (3, workload.frames, workload.height, workload.width),
            "vae_encode": (model.vae.latent_channels, *model.latent_shape(workload)),
        },
    )


def test_tables_made_while_building_have_their_values():
    """Rotary and sincos tables are buffers; laid out on meta they would be garbage on the
    device."""
    from diffusers import LatteTransformer3DModel, WanTransformer3DModel

    for name, kind in (
        ("wan2.1-t2v-1.3b", WanTransformer3DModel),
        ("latte", LatteTransformer3DModel),
    ):
        spec = reduced(name)[0].denoiser
        built = dict(zoo.build(spec, CPU, torch.bfloat16).model.named_buffers())
        direct = dict(kind(**spec.config).named_buffers())
        assert built.keys() == direct.keys() != set()
        assert all(torch.equal(built[key], direct[key]) for key in direct)


# --- two experts ---


class Undecoded:
    """Latents as they are."""

    def decode(self, latents, frames):
        return latents


def test_the_expert_follows_time():
    model, workload = reduced("wan2.2-t2v-a14b")
    pipeline = build_pipeline(
        model.denoiser, model.vae, (), device=CPU, dtype=FP32, seed=0, stages=("forward",)
    )
    first, second = pipeline.denoiser.experts
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    for t, expert in ((1.0, first), (0.875, first), (0.874, second), (0.0, second)):
        pipeline.denoiser.at(t)
        assert pipeline.denoiser.model is expert
    ran = []
    for i, expert in enumerate((first, second)):
        expert.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
    inputs = example_inputs(
        pipeline,
        batch=1,
        channels=16,
        latent_shape=model.latent_shape(workload),
        device=CPU,
        dtype=FP32,
        seed=0,
    )
    pipeline.vae = Undecoded()
    pipeline.generate(inputs.latents, 8, inputs.condition, workload.frames)
    assert ran == [0, 0, 1, 1, 1, 1, 1, 1]  # t = 1, 7/8, 6/8, ...


@pytest.mark.parametrize(
    "change", [{"boundary": None}, {"experts": 1}, {"experts": 3}, {"boundary": 1.5}]
)
def test_experts_and_boundary_belong_together(change):
    with pytest.raises(UserError, match="experts|boundary"):
        load_point(
            "wan2.2-t2v-a14b",
            "720p-81f-40steps",
            "eager-bf16",
            {f"denoiser.{k}": v for k, v in change.items()},
        )


# --- what cannot be ---


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


# --- weights of a local folder ---


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


@pytest.mark.slow
@pytest.mark.parametrize("row", golden(), ids=lambda row: row["model"])
def test_every_stage_counts_at_the_public_shape(row):
    """VAE and text encoders too; those that run in tiles take tens of seconds."""
    point = load_point(row["model"], row["workload"], "eager-bf16")
    count = count_model(point.model, point.workload, "bf16")
    assert (
        count.cross_check["fvcore"]
        == count.cross_check["torch_flop_counter"]
        == int(row["forward_flops"])
    )
    assert count.stages["vae_decode"].flops > count.stages["vae_encode"].flops * 0.1
