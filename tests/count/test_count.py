"""Counts are exact.  The arithmetic stands beside each golden number."""

import csv
import re

import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from bench.core.errors import UserError
from bench.core.load import load_point
from bench.count.closed import dit as closed_form
from bench.count.document import count_document
from bench.count.point import count_model, count_point
from bench.count.rules import UncountedOperator
from bench.count.stage import stage_count
from bench.count.trace import trace
from models.dit.model import SpatioTemporalDiT
from models.spec import DiTConfig, TextEncoderConfig
from models.text.model import TextEncoder
from models.vae.model import VideoVAE
from models.vae.parts import decode_in_parts
from models.vae.tiling import few_parts
from support.models.specs import DIT
from support.models.tracing import empty, on_meta
from support.paths import GOLDEN, ROOT

META = torch.device("meta")


def published_table():
    lines = [
        line
        for line in (GOLDEN / "dit_table.csv").read_text().splitlines()
        if not line.startswith("#")
    ]
    return list(csv.DictReader(lines))


@pytest.mark.parametrize("row", published_table(), ids=lambda r: f"{r['model']} {r['workload']}")
def test_dit_equals_the_papers_table(row):
    """To the printed digits, or 0.3 % where the paper itself is a digit off (B/4 prints 5.56, its
    shape has 5.57)."""
    point = load_point(row["model"], row["workload"], "eager-bf16")
    flops = sum(
        closed_form.dit_forward(
            point.model.denoiser, point.model.latent_shape(point.workload), 1
        ).values()
    )
    gmacs, printed = flops / 2 / 1e9, row["gmacs"]
    digits = len(printed.partition(".")[2])
    assert round(gmacs, digits) == float(printed) or abs(gmacs / float(printed) - 1) < 0.003
    assert abs(closed_form.dit_parameters(point.model.denoiser) / 1e6 - float(row["params_M"])) < 1


def test_dit_xl_2_at_512_to_the_last_flop():
    point = load_point("dit-xl-2", "image-512", "eager-bf16")
    counted = count_model(point.model, point.workload, "bf16")
    n, d, depth = 1024, 1152, 28
    macs = (
        n * 4 * 4 * d  # patch embedding: 4 channels of 2 x 2
        + 256 * d
        + d * d  # timestep
        + depth
        * (12 * n * d * d + 6 * d * d)  # QKV 3, projection 1, MLP 8, a token; adaLN 6, a sample
        + depth * 2 * n * n * d  # QK^T and AV
        + 2 * d * d
        + n * d * 8 * 4  # final adaLN; projection to 8 channels of 2 x 2
    )
    assert macs == 524_538_298_368
    assert counted.cross_check == dict.fromkeys(
        ("fvcore", "torch_flop_counter", "closed_form"), 2 * macs
    )
    assert counted.params["denoiser"] == 674_834_720


def test_sora_20b_for_a_minute():
    """Full attention at 184,320 tokens: 3.41e16 FLOP a step, 12.05 times the pencil's 2.83e15."""
    point = load_point("sora-20b", "sora-1min-512", "eager-bf16")
    counted = count_model(point.model, point.workload, "bf16")
    n, d, depth = 184_320, 5120, 42
    macs = (
        n * 64 * d
        + 256 * d
        + d * d
        + 4096 * d
        + d * d
        + depth * (12 * n * d * d + 6 * d * d + 2 * n * n * d)
        + 2 * d * d
        + n * d * 64
    )
    assert 2 * macs == 34_093_705_453_895_680
    assert set(counted.cross_check.values()) == {2 * macs}
    assert (
        counted.params["denoiser"]
        == closed_form.dit_parameters(point.model.denoiser)
        == 19_949_143_104
    )
    assert 2 * macs / (524e9 * 30 * 180) == pytest.approx(12.05, abs=0.005)


@pytest.mark.parametrize(("name", "billions"), [("sora-10b", 10.05), ("sora-3b", 2.99)])
def test_smaller_soras(name, billions):
    config = load_point(name, "image-512", "eager-bf16").model.denoiser
    assert closed_form.dit_parameters(config) / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize("causal", [True, False])
def test_a_long_clip_in_parts_is_counted_from_two_short_ones(causal):
    """Exactly what tracing all of its parts gives: FLOPs, bytes, kernels, peak."""
    frames = 13 if causal else 53
    small = {"vae.channels": [8, 16], "vae.temporal_factor": 2, "workload.frames": frames}
    small |= {"vae.causal": causal, "workload.height": 16, "workload.width": 24}
    point = load_point("tiny", "tiny-clip", "eager-fp32-chunks", small)
    latent_frames = point.model.latent_shape(point.workload)[0]
    assert latent_frames > few_parts(point.model.vae, latent_frames, 1)
    counted = count_point(point).stages["vae_decode"]
    model, latents = (
        on_meta(VideoVAE, point.model.vae),
        empty(1, 4, *point.model.latent_shape(point.workload)),
    )
    tiling = point.recipe.vae_tile
    assert counted == stage_count(
        trace(lambda: decode_in_parts(model, latents, chunk=1, tiling=tiling)), own=True
    )
    whole = count_point(load_point("tiny", "tiny-clip", "eager-fp32", small))
    assert counted.bytes_peak_activations < whole.stages["vae_decode"].bytes_peak_activations


TASK = {"denoiser.masked_condition": True, "workload.frames": 17}


@pytest.mark.parametrize(
    ("task", "given", "encoded"),
    [
        ("image-to-video", 0, 1),
        ("video-to-video", 0, 17),
        ("extend", 9, 9),
        ("extend-backward", 9, 9),
        ("loop", 5, 5),
    ],
)
def test_what_is_given_is_encoded_once(task, given, encoded):
    point = load_point(
        "tiny",
        "tiny-clip",
        "eager-fp32",
        TASK | {"workload.task": task, "workload.given_frames": given},
    )
    document = count_document(point, count_point(point))
    plain = load_point("tiny", "tiny-clip", "eager-fp32", TASK)
    base = count_document(plain, count_point(plain))
    expected = closed_form.vae_encode(point.model.vae, encoded, 64, 64, 1)["conv"]
    assert document["condition_encode_flops"] == expected
    assert document["video_flops"] == base["video_flops"] + expected
    assert base["condition_encode_flops"] == 0


def test_a_control_video_is_encoded_and_its_blocks_counted():
    point = load_point("tiny", "tiny-clip", "eager-fp32", {"denoiser.control_blocks": 2})
    plain = load_point("tiny", "tiny-clip", "eager-fp32")
    document, base = (count_document(p, count_point(p)) for p in (point, plain))
    assert document["condition_encode_flops"] == base["vae_encode_flops"]
    # two of four blocks again, their outputs (D x D a token), the control's patches (C * 4 x D); 5
    # x 8 x 8 tokens
    n, d = 5 * 8 * 8, 256
    block = 2 * n * 12 * d * d + 2 * 6 * d * d + 4 * n * n * d
    assert (
        document["forward"]["flops"] - base["forward"]["flops"]
        == 2 * (block + 2 * n * d * d) + 2 * n * 16 * d
    )


@pytest.mark.parametrize(("kv_heads", "gated"), [(2, True), (1, True), (2, False)])
def test_text_encoder(kv_heads, gated):
    config = TextEncoderConfig(
        width=8,
        depth=3,
        num_heads=2,
        head_dim=4,
        kv_heads=kv_heads,
        ffn_width=16,
        gated=gated,
        tokens=5,
    )
    traced = trace(lambda: on_meta(TextEncoder, config)(torch.empty(2, 5, 8, device=META)))
    a_token = (
        2 * 8 * 8 + 2 * 8 * 4 * kv_heads + (3 if gated else 2) * 8 * 16
    )  # query, projection; keys, values; FFN
    macs = 3 * 2 * 5 * a_token + 3 * 2 * 2 * 5 * 5 * 8  # and QK^T and AV
    assert traced.flops_by_class() == closed_form.text_encode(config, 2)
    assert sum(traced.flops_by_class().values()) == 2 * macs


def test_fvcores_own_tracer_agrees_outside_attention():
    """FlopCountAnalysis needs real tensors and silently counts attention as 0; everything else must
    agree."""
    config = DiTConfig(**{**DIT, "positions": "sincos"})
    model = SpatioTemporalDiT(config)
    x, t = torch.randn(1, 4, 2, 8, 8), torch.rand(1)
    analysis = (
        FlopCountAnalysis(model, (x, t))
        .unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
    )
    by_operator = analysis.by_operator()
    expected = closed_form.dit_forward(config, (2, 8, 8), 1)
    assert 2 * by_operator["linear"] == expected["linear"]
    assert by_operator["bmm"] == by_operator["matmul"] == 0
    traced = trace(lambda: on_meta(SpatioTemporalDiT, config)(x.to(META), t.to(META)))
    assert by_operator["layer_norm"] == sum(op.norm_flops for op in traced.ops)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: torch.cdist(a, a),
        lambda a: torch.linalg.solve(a, a),
        lambda a: torch.linalg.householder_product(a, a[0]),
    ],
    ids=["cdist", "solve", "householder_product"],
)
def test_an_operator_that_may_multiply_and_has_no_rule_stops_the_count(call):
    with pytest.raises(UncountedOperator, match="aten::"):
        trace(lambda: call(torch.empty(4, 4, device=META)))


def test_products_outside_layers_are_counted_apart():
    a, b = torch.empty(2, 3, 4, device=META), torch.empty(2, 4, 5, device=META)
    bias = torch.empty(2, 3, 5, device=META)
    assert trace(lambda: a @ b).flops_by_class()["other"] == 2 * 2 * 3 * 4 * 5
    assert trace(lambda: torch.baddbmm(bias, a, b)).flops_by_class()["other"] == 2 * 2 * 3 * 4 * 5
    assert (
        trace(lambda: torch.einsum("bij,bjk->bik", a, b)).flops_by_class()["other"]
        == 2 * 2 * 3 * 4 * 5
    )


def test_bytes_of_one_linear_layer_and_one_attention():
    layer, x = torch.nn.Linear(8, 16, device=META), torch.empty(4, 8, device=META)
    (op,) = trace(lambda: layer(x)).ops
    assert op.bytes_in + op.bytes_out == 4 * (
        4 * 8 + 8 * 16 + 16 + 4 * 16
    )  # x, weight, bias, result; float32
    q = torch.empty(2, 3, 10, 8, device=META)
    (op,) = trace(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)).ops
    assert op.bytes_in + op.bytes_out == 4 * 4 * (2 * 3 * 10 * 8)  # q, k, v, result
    assert op.unfused_bytes - op.bytes_in - op.bytes_out == 4 * 4 * (
        2 * 3 * 10 * 10
    )  # scores, four times


def test_document_adds_up():
    point = load_point("tiny", "tiny-video", "eager-bf16")
    document = count_document(point, count_model(point.model, point.workload, "bf16"))
    forward = document["forward"]
    assert forward["flops"] == 2 * forward["macs"] == sum(forward["by_class"].values())
    assert forward["linear_only_flops"] == forward["by_class"]["linear"]
    assert document["step_flops"] == 2 * forward["flops"]  # guidance
    assert document["video_flops"] == (
        20 * document["step_flops"] + document["vae_decode_flops"] + document["text_encode_flops"]
    )
    assert document["bytes"]["modelled_min"] < document["bytes"]["modelled_max"]
    assert sum(document["by_module"]["SpatioTemporalDiT"].values()) == forward["flops"]
    assert set(document["cross_check"]) == {"fvcore", "torch_flop_counter", "closed_form"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"denoiser.diffusers": "Foo"}, "no adapter for diffusers' Foo"),
        ({"vae.diffusers": "os"}, "no attribute os"),
        ({"denoiser.config.num_layers": "abc"}, "its parts cannot be built"),
        ({"denoiser.in_channels": 8, "vae.latent_channels": 8}, "forward does not take its inputs"),
        (
            {"vae.spatial_factor": 4},
            "vae_decode gives (1, 3, 1, 32, 32) where the spec says (1, 3, 1, 16, 16)",
        ),
        (
            {"vae.first_frame_alone": False, "workload.frames": 4},
            "vae_decode gives (1, 3, 1, 16, 16)",
        ),
    ],
)
def test_a_public_spec_that_its_class_does_not_agree_with(overrides, message):
    small = {
        "workload.height": 16,
        "workload.width": 16,
        "denoiser.config.num_layers": 1,
        "text_encoders": [],
    }
    point = load_point("wan2.1-t2v-1.3b", "image-256", "eager-bf16", {**small, **overrides})
    with pytest.raises(UserError) as caught:
        count_model(point.model, point.workload, "bf16")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_beyond_torchs_sizes_is_the_users_mistake():
    point = load_point(
        "tiny", "tiny-video", "eager-bf16", {"workload.frames": 9_999_997, "workload.batch": 10_000}
    )
    with pytest.raises(UserError, match="a tensor of more than 2\\*\\*63 bytes"):
        count_model(point.model, point.workload, "bf16")


@pytest.mark.parametrize("frames", [1, 64])
def test_the_memory_table_of_the_docs_is_what_count_says(frames):
    """Its short rows; the long ones take a minute to trace."""
    row = re.search(
        rf"^\| {frames} frames? .*$", (ROOT / "docs/methodology.md").read_text(), flags=re.MULTILINE
    )[0]
    printed = [float(n) for n in re.findall(r"([\d.]+) GiB", row)]
    counted = []
    for recipe in ("eager-bf16", "eager-bf16-cudnn-chunks"):
        point = load_point(
            "sora-3b", "sora-1min-512", recipe, {"workload.frames": frames, "depth": 1}
        )
        counted.append(count_point(point).stages["vae_decode"].bytes_peak_activations / 2**30)
    assert printed == [round(c + 1e-9, 1) for c in counted]


@pytest.mark.parametrize(
    ("model", "workload"), [("tiny", "tiny-video"), ("wan-tiny", "versus-cpu")]
)
def test_the_rows_by_module_sum_to_a_forward(model, workload):
    from bench.report.tables.count import module_table

    point = load_point(model, workload, "eager-bf16")
    document = count_document(point, count_point(point))
    rows = module_table(document).rows
    assert sum(row[1].value for row in rows) == document["forward"]["flops"]
    assert sum(row[2].value for row in rows) == pytest.approx(1.0)
    assert not any(row[0].text.startswith("experts") for row in rows)
