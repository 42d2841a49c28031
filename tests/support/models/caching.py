"""A model and its inputs for tests of trajectories and caches."""

import torch

from bench.core.load import load
from bench.core.specs.model import Model
from models.diffusion.trajectory import Guided
from models.pipeline import build_pipeline
from models.spec import SamplerConfig
from models.stages import example_inputs

CPU, META, SHAPE = torch.device("cpu"), torch.device("meta"), (2, 4, 4)


def euler(steps, sampler="euler"):
    return SamplerConfig(
        sampler=sampler,
        steps=steps,
        path="linear",
        prediction="velocity",
        diffusion=None,
        diffusion_norm=None,
        last_step=None,
        eta=None,
    )


def built(name="tiny", device=CPU, shape=SHAPE, **overrides):
    model = load(Model, name, {f"denoiser.{k}": v for k, v in {"depth": 4, **overrides}.items()})
    pipeline = build_pipeline(
        model.denoiser,
        model.vae,
        (),
        device=device,
        dtype=torch.float32,
        seed=0,
        stages=["forward"],
    )
    return pipeline.denoiser, example_inputs(
        pipeline,
        batch=1,
        channels=model.denoiser.in_channels,
        latent_shape=shape,
        device=device,
        dtype=torch.float32,
        seed=1,
    )


def guided(denoiser, inputs):
    return Guided(denoiser, inputs.condition, inputs.unconditional, 5.0)
