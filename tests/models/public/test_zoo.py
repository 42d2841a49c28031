"""Public models: counted on meta at their public shapes, and run for real, reduced, through the
same adapters."""

import csv
from functools import cache

import pytest
import torch

from bench.core.load import load, load_point, names
from bench.core.specs.model import Model
from bench.count.depth import forward_work
from bench.count.point import META, count_model
from bench.count.trace import Trace, trace
from models.pipeline import VideoPipeline
from models.public import zoo
from models.spec import DiffusersDenoiser
from models.stages import example_inputs
from support.models.zoo import flops
from support.models.zoo_reduced import REDUCED
from support.paths import GOLDEN, ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("row", golden(), ids=lambda row: row["model"])
def test_public_shape(row):
    """By two and three blocks, extrapolated: a tenth of the time of all blocks."""
    point = load_point(row["model"], row["workload"], "eager-bf16")
    denoiser = point.model.denoiser
    held = sum(p.numel() for p in zoo.build(denoiser, META, torch.bfloat16).parameters())
    work = forward_work(denoiser, point.model.latent_shape(point.workload))
    assert denoiser.published == row["published"]
    assert (held, point.model.tokens(point.workload), work.flops) == (
        int(row["denoiser_params"]),
        int(row["tokens"]),
        int(row["forward_flops"]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("row", golden(), ids=lambda row: row["model"])
def test_public_shape_by_all_blocks(row):
    params, tokens, traced = forward(row["model"], row["workload"])
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
