"""Public models run for real, reduced, through the same adapters."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.core.errors import UserError
from bench.core.load import load_point
from bench.count.point import META
from bench.count.trace import trace
from models.pipeline import build_pipeline
from models.public import zoo
from models.stages import StageRequest, example_inputs, stage_calls
from support.models.zoo import flops
from support.models.zoo_reduced import REDUCED, reduced

pytestmark = pytest.mark.usefixtures("one_thread")


CPU, FP32 = torch.device("cpu"), torch.float32


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
