"""One point: what cannot run on a device is an outcome with a reason."""

import pytest
import torch

from bench.core.load import load_point
from bench.measure.errors import Unsupported
from bench.measure.points import single as measuring
from bench.measure.points.build import count_stages
from bench.measure.points.single import measure_point
from bench.measure.timing.clock import clock_for
from support.plans import PLAN

CPU = torch.device("cpu")


def test_a_head_size_the_kernel_does_not_take_is_named(monkeypatch):
    def no_kernel(*args, **kwargs):
        raise RuntimeError("No available kernel. Aborting execution.")

    monkeypatch.setattr(measuring, "sample", no_kernel)
    point = load_point("tiny", "tiny-image", "eager-fp32")
    with pytest.raises(
        Unsupported, match="SDPA backend auto has no kernel for head_dim 64 in fp32 on this device"
    ):
        measure_point(
            point,
            count_stages(point),
            CPU,
            clock_for(CPU),
            PLAN,
            prior={},
            on_round=lambda *_: None,
        )


@pytest.mark.parametrize(
    ("model", "workload", "stages"),
    [
        ("tiny-joint", "tiny-clip", ("denoise_step", "train_step")),
        ("tiny-cross", "tiny-clip", ("denoise_step",)),
        ("tiny-windowed", "tiny-clip", ("denoise_step", "train_step")),
        ("tiny-masked", "tiny-extend", ("denoise_step", "condition_encode")),
        ("tiny-control", "tiny-clip", ("denoise_step", "condition_encode")),
    ],
)
def test_every_kind_of_model_is_measured(model, workload, stages):
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    point = load_point(model, workload, "eager-fp32", stages=stages)
    counts = count_stages(point)
    timings, memory, _ = measure_point(
        point, counts, CPU, clock_for(CPU), plan, prior={}, on_round=lambda *_: None
    ).readings
    assert set(timings) == set(stages)
    assert memory.weights > 0
    if "train_step" in stages:
        assert counts.stages["train_step"].flops > 2.5 * counts.stages["forward"].flops
        assert (
            counts.stages["train_step"].bytes_peak_activations
            > counts.stages["forward"].bytes_peak_activations
        )


def test_a_decode_in_parts_is_measured():
    plan = PLAN.model_copy(update={"min_samples": 2, "max_samples": 2, "max_s": 0.1})
    two_tiles = {"workload.height": 32, "workload.width": 48, "workload.frames": 9}
    point = load_point("tiny", "tiny-clip", "eager-fp32-chunks", two_tiles, ("vae_decode",))
    timings, _, _ = measure_point(
        point, count_stages(point), CPU, clock_for(CPU), plan, prior={}, on_round=lambda *_: None
    ).readings
    assert timings["vae_decode"].median_s > 0
