"""A point on its mesh, counted on meta tensors behind torch's fake process group."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from bench.core.errors import UserError
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.count.parallel.closed import step_messages
from bench.count.parallel.seen import CollectivesMode, fake_ranks
from bench.count.parallel.sent import Sent, summed
from bench.count.trace import trace
from models.parallel.apply import parallelise, shape_of
from models.parallel.mesh import make_mesh
from models.parallel.spec import Parallel, refusal
from models.pipeline import build_pipeline
from models.spec import DiTConfig
from models.stages import GUIDANCE_SCALE, example_inputs

META = torch.device("meta")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
DTYPES["fp16"] = torch.float16


class MessageMismatch(AssertionError):
    """The closed form and the traced collectives disagree: a bug of ours."""


@dataclass(frozen=True)
class RankCount:
    """One rank's share of a denoising step."""

    parallel: Parallel
    flops: int
    """By fvcore's rules."""
    sent: list[Sent]
    closed_form: bool
    """Does a closed form agree with `sent`?  Own DiTs."""

    @property
    def bytes_sent(self) -> int:
        return sum(s.bytes_sent for s in self.sent)


def count_rank(point: Point, beside: AbstractContextManager[Any] | None = None) -> RankCount:
    """Rank 0's denoising step on the recipe's mesh.  beside: another counter of the same step.

    Raises UserError for a mesh that the model cannot run on, MessageMismatch where two counters
    disagree."""
    parallel = point.recipe.parallel or Parallel()
    model, workload = point.model, point.workload
    guided = workload.guidance == "cfg"
    check_mesh(point)
    with fake_ranks(parallel.ranks):
        mesh = make_mesh(parallel, "cpu")
        pipeline = build_pipeline(
            model.denoiser,
            model.vae,
            (),
            device=META,
            dtype=DTYPES[point.recipe.dtype],
            seed=0,
            stages=("denoise_step",),
        )
        try:
            parallelise(pipeline, mesh)
        except ValueError as error:
            raise UserError(str(error)) from None
        inputs = example_inputs(
            pipeline,
            batch=workload.batch,
            channels=model.denoiser.in_channels,
            latent_shape=model.latent_shape(workload),
            device=META,
            dtype=DTYPES[point.recipe.dtype],
            seed=0,
        )

        def step() -> torch.Tensor:
            return pipeline.denoise_step(
                inputs.latents,
                inputs.t,
                -0.02,
                inputs.condition,
                inputs.unconditional if guided else None,
                GUIDANCE_SCALE,
            )

        collectives = CollectivesMode(mesh)
        with beside or nullcontext(), collectives:
            flops = sum(trace(step).flops_by_class().values())
        sent = summed(collectives.messages)
    closed = closed_messages(point)
    if closed is not None and closed != sent:
        raise MessageMismatch(f"{point.label}: traced {sent}, closed form {closed}")
    return RankCount(parallel, flops, sent, closed is not None)


def check_mesh(point: Point) -> None:
    """Raises UserError where the recipe's mesh does not fit the point."""
    parallel, denoiser = point.recipe.parallel, point.model.denoiser
    if parallel is None or not isinstance(denoiser, DiTConfig):
        return
    tokens = point.model.tokens(point.workload)
    guided = point.workload.guidance == "cfg"
    reason = refusal(parallel, shape_of(denoiser, tokens, guided))
    if reason is not None:
        raise UserError(f"{point.model.name} on {parallel.words()}: {reason}")


def closed_messages(point: Point) -> list[Sent] | None:
    """By the closed form; None for a public model."""
    denoiser = point.model.denoiser
    if not isinstance(denoiser, DiTConfig):
        return None
    return step_messages(
        denoiser,
        point.model.latent_shape(point.workload),
        point.recipe.parallel or Parallel(),
        batch=point.workload.batch,
        element=DTYPE_BYTES[point.recipe.dtype],
        guided=point.workload.guidance == "cfg",
    )
