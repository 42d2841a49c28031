"""Step times of batches: recovered from made-up ones, and real ones of a tiny model; `serve-sim`
from end to end."""

import json

import pytest
import torch

from bench.core.errors import UserError
from bench.core.load import load_point
from bench.core.specs.suite import Sampling
from bench.studies.serving import batches
from bench.studies.serving.batches import batch_step, check_servable, shape_costs
from bench.studies.serving.step_times import (
    ShapeCost,
    StepTime,
    StepTimes,
    features,
    grid,
    largest_batch,
)
from models.pipeline import build_pipeline
from support.cli import cli

COSTS = (
    ShapeCost(100, 10**6, 10**5),
    ShapeCost(400, 4 * 10**6, 16 * 10**5),
    ShapeCost(250, 25 * 10**5, 6 * 10**5),
)
CPU = torch.device("cpu")


def truth(composition, packed):
    """2 ms, 1 ns a linear FLOP, 2 ns an attention FLOP, 0.3 ms a request; a batch dimension saves a
    tenth."""
    _, linear, attention, requests = features(composition, COSTS)
    return (2e-3 + 1e-9 * linear + 2e-9 * attention + 3e-4 * requests) * (1.0 if packed else 0.9)


def measured(max_batch=4, budget=1500, keep=lambda composition, packed: True):
    return StepTimes(
        COSTS,
        tuple(
            StepTime(c, packed, truth(c, packed), 0.0, 0.0, 3)
            for c, packed in grid(COSTS, max_batch, budget)
            if keep(c, packed)
        ),
    )


def test_mixed_batches_are_recovered_and_one_shape_lies_on_its_curve():
    times = measured()
    assert times.parameters == pytest.approx([2e-3, 1e-9, 2e-9, 3e-4], rel=1e-6)
    assert times.seconds((5, 1, 2)) == pytest.approx(truth((5, 1, 2), True))
    assert times.source((5, 1, 2)) == "fitted"
    assert times.seconds((1, 1, 0)) == truth((1, 1, 0), True)
    assert times.source((1, 1, 0)) == "measured"
    assert times.seconds((0, 3, 0)) == pytest.approx(
        truth((0, 3, 0), False)
    )  # between 2 and 4, and linear
    assert (times.source((0, 3, 0)), times.source((0, 2, 0))) == ("interpolated", "measured")
    assert times.leave_one_out() == pytest.approx((0, 0), abs=1e-6)
    with pytest.raises(ValueError, match="5 requests of shape 1 in a batch: measured up to 4"):
        times.seconds((0, 5, 0))


def test_a_batch_that_does_not_follow_the_fit_shows_in_the_held_out_error():
    times = measured()
    last = times.measured[-1]
    off = StepTime(last.composition, True, 1.5 * last.median_s, 0.0, 0.0, 3)
    mean, worst = StepTimes(COSTS, (*times.measured[:-1], off)).leave_one_out()
    assert worst > 0.3
    assert mean < worst


def test_with_too_few_batches_none_is_held_out():
    assert (
        measured(keep=lambda c, packed: sum(c) <= 2 and (not packed or c[2] == 0)).leave_one_out()
        is None
    )


def test_the_grid_covers_what_policies_may_run():
    wanted = grid(COSTS, 4, 1500)
    assert len(set(wanted)) == len(wanted)
    for i, cost in enumerate(COSTS):
        sizes = [c[i] for c, packed in wanted if not packed and c[i]]
        assert sizes[0] == 1
        assert max(sizes) == largest_batch(cost, 4, 1500) >= 1500 // cost.tokens
    mixes = [c for c, packed in wanted if sum(n > 0 for n in c) > 1]
    assert len(mixes) > 5
    tokens = [sum(n * cost.tokens for n, cost in zip(c, COSTS, strict=True)) for c in mixes]
    assert max(tokens) <= 1500
    assert max(tokens) > 1400  # a nearly full one is among them
    assert grid(COSTS[:1], 3, 300) == [
        ((1,), False),
        ((2,), False),
        ((3,), False),
    ]  # nothing to mix


@pytest.mark.parametrize("guidance", ["none", "cfg"])
def test_a_real_batch_steps_each_request_as_if_alone(guidance, one_thread):
    points = [
        load_point("tiny", name, "eager-fp32", {"workload.guidance": guidance, "denoiser.depth": 2})
        for name in ("tiny-clip", "tiny-tall")
    ]
    model = points[0].model
    pipeline = build_pipeline(
        model.denoiser, model.vae, (), device=CPU, dtype=torch.float32, seed=0, stages=["forward"]
    )
    forwards = []
    pipeline.denoiser.final_layer.register_forward_hook(lambda *_: forwards.append(1))
    workloads = [p.workload for p in points]
    with torch.inference_mode():
        packed = batch_step(pipeline, workloads, (2, 0), packed=True, point=points[0], device=CPU)()
        batch = batch_step(pipeline, workloads, (2, 0), packed=False, point=points[0], device=CPU)()
        mixed = batch_step(pipeline, workloads, (1, 1), packed=True, point=points[0], device=CPU)()
    assert len(forwards) == 3 * (2 if guidance == "cfg" else 1)
    assert [tuple(x.shape[2:]) for x in mixed] == [model.latent_shape(w) for w in workloads]
    torch.testing.assert_close(torch.cat(packed), batch[0], rtol=1e-4, atol=1e-5)
    assert not torch.equal(packed[0], packed[1])


def test_costs_are_the_closed_forms_and_guidance_doubles_them():
    plain, guided = (
        shape_costs(
            [load_point("tiny", "tiny-clip", "eager-fp32", {"workload.guidance": guidance})]
        )[0]
        for guidance in ("none", "cfg")
    )
    assert plain.tokens == 5 * 8 * 8  # 17 frames of 64x64, 4x down in time and space, patches of 2
    assert (
        plain.attention_flops == 4 * 4 * 320 * 320 * 256
    )  # 4 blocks; QK^T and AV, 2 FLOPs a MAC, width 256
    assert (guided.linear_flops, guided.attention_flops) == (
        2 * plain.linear_flops,
        2 * plain.attention_flops,
    )


@pytest.mark.parametrize(
    ("model", "overrides", "said"),
    [
        ("wan2.1-t2v-1.3b", {}, "requests of different shapes are packed by own denoisers"),
        ("tiny", {"workload.batch": 2}, "has batch 2: a request is one video"),
    ],
)
def test_what_cannot_share_a_batch_says_so(model, overrides, said):
    with pytest.raises(UserError, match=said):
        check_servable(
            [
                load_point(
                    model, "480p-81f" if model != "tiny" else "tiny-clip", "eager-fp32", overrides
                )
            ]
        )


def test_guidance_must_be_the_same():
    with pytest.raises(UserError, match="tiny-video has guidance cfg, tiny-clip has none"):
        check_servable(
            [load_point("tiny", name, "eager-fp32") for name in ("tiny-clip", "tiny-video")]
        )


def test_serve_sim_from_end_to_end(here, tmp_path, monkeypatch, one_thread):
    quick = Sampling(target_relative_half_width=9.0, min_samples=1, max_samples=1, max_s=0.01)
    monkeypatch.setattr(batches, "SAMPLING", quick)
    code, out, _ = here(
        "serve-sim",
        "tiny",
        "-w",
        "tiny-image",
        "-w",
        "tiny-clip",
        "-w",
        "tiny-image",
        "--device",
        "cpu",
        "--max-batch",
        "2",
        "--requests",
        "100",
        "--set",
        "depth=1",
        "--out",
        str(tmp_path),
        "--json",
    )
    assert code == 0
    document = json.loads(out)
    assert document == json.loads((tmp_path / "serving.json").read_text())
    assert (tmp_path / "throughput_vs_latency.png").stat().st_size > 1000
    assert document["provenance"] == "measured step times, simulated arrivals"
    assert document["shares"] == [2, 1]
    assert [w["name"] for w in document["workloads"]] == ["tiny-image", "tiny-clip"]
    assert {"text_encode", "vae_decode"} == set(document["workloads"][0]["stages"])
    assert all(t["provenance"] == "measured" and t["n"] >= 1 for t in document["step_times"])
    assert [p["name"] for p in document["policies"]] == [
        "one by one",
        "one shape, up to 2",
        "packed",
        "packed, joining",
    ]
    for policy in document["policies"]:
        for load in policy["loads"]:
            assert (load["latency_s"] is None) == load["saturated"]
            assert load["utilisation"] <= 1 + 1e-9
            if not load["saturated"]:
                assert (
                    0
                    < load["latency_s"]["p50"]
                    <= load["latency_s"]["p95"]
                    <= load["latency_s"]["p99"]
                )
        assert any(not load["saturated"] for load in policy["loads"])


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["serve-sim", "tinny"], 2, "did you mean tiny?"),
        (["serve-sim", "-w", "tiny-clipp"], 2, "did you mean tiny-clip?"),
        (["serve-sim", "--max-wait", "soon"], 2, "--max-wait: duration 'soon' is not understood"),
        (["serve-sim", "--device", "gpu"], 2, "--device 'gpu' is not one of cpu, cuda"),
        (["serve-sim", "--max-batch", "0"], 2, "--max-batch"),
        (
            [
                "serve-sim",
                "sora-20b",
                "-w",
                "sora-1min-512",
                "--device",
                "cpu",
                "--set",
                "width=20480",
                "--set",
                "num_heads=160",
            ],
            3,
            "GB are free; not tried",
        ),
    ],
)
def test_mistakes_are_one_line(here, args, code, said):
    got, out, err = here(*args)
    assert (got, out) == (code, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_serve_sim_prints_its_tables():
    done = cli(
        "serve-sim",
        "tiny",
        "-w",
        "tiny-image",
        "-w",
        "tiny-clip",
        "--max-batch",
        "2",
        "--requests",
        "200",
        "--set",
        "depth=1",
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    for text in ("1 tiny-image + 1 tiny-clip", "packed, joining", "at most, beside one by one"):
        assert text in done.stdout


@pytest.mark.gpu
def test_serve_sim_on_a_gpu(here):
    code, out, err = here(
        "serve-sim",
        "tiny",
        "--recipe",
        "eager-bf16",
        "--device",
        "cuda",
        "--requests",
        "200",
        "--json",
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["gpu"] != "cpu"
    assert all(t["step_s"]["value"] > 0 for t in document["step_times"])
