"""A point on its mesh, counted on meta tensors behind torch's fake process group."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from bench.core.errors import UserError
from bench.core.specs.point import Point
from bench.core.specs.recipe import DTYPE_BYTES
from bench.count.checks import said_of_misfits
from bench.count.parallel.closed import step_messages, weight_messages
from bench.count.parallel.seen import CollectivesMode, fake_ranks
from bench.count.parallel.sent import Sent, summed
from bench.count.point import DTYPES, on_meta, stage_request
from bench.count.stage import stage_count
from bench.count.trace import trace
from bench.results.counts import StageCount
from models.denoiser import blocks_of
from models.parallel.apply import parallelise, shape_of
from models.parallel.mesh import make_mesh
from models.parallel.spec import Parallel, Shape, refusal
from models.pipeline import VideoPipeline
from models.spec import DiTConfig, PythonDenoiser
from models.stages import stage_calls


class MessageMismatch(AssertionError):
    """The closed form and the traced collectives disagree: a bug of ours."""


@dataclass(frozen=True)
class RankCount:
    """One rank's share of a denoising step."""

    parallel: Parallel
    step: StageCount
    sent: list[Sent]
    """Activations, as traced."""
    weights: list[Sent]
    """Sharded weights, by their shapes: on meta nothing can be gathered."""
    closed_form: bool
    """Does a closed form agree with `sent`?  Own DiTs."""

    @property
    def flops(self) -> int:
        """By fvcore's rules."""
        return self.step.flops

    @property
    def bytes_sent(self) -> int:
        return sum(s.bytes_sent for s in (*self.sent, *self.weights))


def count_rank(point: Point, beside: AbstractContextManager[Any] | None = None) -> RankCount:
    """Rank 0's denoising step on the recipe's mesh.  beside: another counter of the same step.

    Raises UserError for a mesh that the model cannot run on, MessageMismatch where two counters
    disagree."""
    parallel = point.recipe.parallel or Parallel()
    model, workload = point.model, point.workload
    check_mesh(point)
    pipeline, inputs = on_meta(model, workload, DTYPES[point.recipe.dtype])
    weights = _weights(pipeline, parallel, point)
    with fake_ranks(parallel.ranks):
        mesh = make_mesh(parallel.model_copy(update={"shard_weights": False}), "cpu")
        try:
            parallelise(pipeline, mesh)
        except ValueError as error:
            raise UserError(f"{model.name}: {error}") from None
        pipeline.denoiser.prepare(inputs.latents)  # kept per shape: no part of a step
        step = stage_calls(pipeline, inputs, stage_request(model, workload, seed=0))["denoise_step"]
        collectives = CollectivesMode(mesh)
        misfits = said_of_misfits(model, workload, "the step does not run")
        with misfits, beside or nullcontext(), collectives:
            traced = trace(step)
    sent, closed = summed(collectives.messages), closed_messages(point)
    if closed is not None and closed != sent:
        raise MessageMismatch(f"{point.label}: traced {sent}, closed form {closed}")
    counted = stage_count(traced, own=isinstance(model.denoiser, DiTConfig))
    return RankCount(parallel, counted, sent, weights, closed is not None)


def _weights(pipeline: VideoPipeline, parallel: Parallel, point: Point) -> list[Sent]:
    """What gathering every block's weights sends in the forwards that one rank runs."""
    if not parallel.shard_weights:
        return []
    element = DTYPE_BYTES[point.recipe.dtype]
    blocks = [[tuple(p.shape) for p in b.parameters()] for b in blocks_of(pipeline.denoiser)]
    of_one = weight_messages(blocks, parallel.ranks, element)
    forwards = point.workload.forwards_per_step // parallel.cfg
    return [Sent(sent.message, sent.calls * forwards) for sent in of_one]


def check_mesh(point: Point) -> None:
    """Raises UserError where the recipe's mesh does not fit the point."""
    parallel, model = point.recipe.parallel, point.model
    if parallel is None:
        return
    if model.autoregressive and parallel.ranks > 1:
        raise UserError(f"{model.name} is auto-regressive: it runs on one rank")
    tokens = model.tokens(point.workload)
    guided = point.workload.guidance == "cfg"
    if isinstance(model.denoiser, DiTConfig):
        shape = shape_of(model.denoiser, tokens, guided)
    elif isinstance(model.denoiser, PythonDenoiser) and parallel.sequence * parallel.tensor > 1:
        raise UserError(
            f"{model.name} on {parallel.words()}: a class of your own runs on several ranks by"
            " cfg and data"
        )
    else:
        shape = Shape(heads=None, tokens=tokens, guided=guided)  # diffusers knows its heads
    reason = refusal(parallel, shape)
    if reason is not None:
        raise UserError(f"{model.name} on {parallel.words()}: {reason}")


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
