"""A whole trajectory: what is executed, times what one step (or one evaluation) of its sort
counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bench.core.specs.model import with_denoiser
from bench.core.specs.point import Point
from bench.count.point import DTYPES, META, count_model
from bench.count.stage import stage_count
from bench.count.trace import trace
from bench.results.counts import Operators, StageCount
from models.caching.apply import apply_cache
from models.caching.cache import Executed
from models.caching.schedules import CacheConfig
from models.pipeline import build_pipeline
from models.spec import DiffusersDenoiser
from models.stages import example_inputs


@dataclass(frozen=True)
class EvaluationFlops:
    """One forward of the denoiser: in full, and with what its cache holds."""

    computed: int
    reused: int

    def of(self, executed: Iterable[Executed]) -> int:
        """FLOPs of all that was executed."""
        ran = Counter(e.computed for e in executed)
        return ran[True] * self.computed + ran[False] * self.reused


def evaluation_flops(
    denoiser: nn.Module, config: CacheConfig, x: Tensor, t: Tensor, condition: dict[str, Tensor]
) -> EvaluationFlops:
    """Count both sorts of evaluation on meta tensors.  The denoiser is left without a cache.

    Raises ValueError where it does not take this one, UncountedOperator as `trace` does."""
    cache = apply_cache(
        denoiser, CacheConfig(kind=config.kind, every=2, warmup=1, last=0)
    )  # computed, then reused
    try:
        cache.begin(2)
        traced = [
            sum(trace(_evaluation(denoiser, x, t, condition)).flops_by_class().values())
            for _ in range(2)
        ]
    finally:
        cache.remove()
    return EvaluationFlops(*traced)


def _evaluation(
    denoiser: nn.Module, x: Tensor, t: Tensor, condition: dict[str, Tensor]
) -> Callable[[], Tensor]:
    return lambda: denoiser(x, t, **condition)


def trajectory_count(point: Point, step: StageCount) -> StageCount:
    """All steps of a point's trajectory as its recipe runs them, from the count of one that is
    computed in full: under a cache some use what is kept, and a draft takes others.  What a sampler
    does beside Euler's is not in it."""
    recipe, steps = point.recipe, point.workload.steps
    drafted = sum(recipe.draft.schedule.by_draft(steps)) if recipe.draft else 0
    computed = sum(recipe.cache.schedule(steps - drafted)) if recipe.cache else steps - drafted
    parts = [(step, computed)]
    if computed < steps - drafted:
        parts.append((_reused_step(point), steps - drafted - computed))
    if drafted:
        small = with_denoiser(point.model, recipe.draft.denoiser)
        parts.append(
            (
                count_model(small, point.workload, recipe.dtype, guidance=recipe.guidance).stages[
                    "denoise_step"
                ],
                drafted,
            )
        )
    return total(parts)


def total(parts: Sequence[tuple[StageCount, int]]) -> StageCount:
    """The work of so many calls of each, one after another; what one call holds at once is that of
    the largest."""
    work: dict[str, int] = {}
    other_ops: Counter[str] = Counter()
    rows: Counter[tuple] = Counter()
    for count, times in parts:
        for name, value in count:
            if name in ("bytes_largest_operator", "bytes_peak_activations"):
                work[name] = max(work.get(name, 0), value if times else 0)
            elif isinstance(value, int):
                work[name] = work.get(name, 0) + times * value
        other_ops.update({op: times * n for op, n in count.uncounted_ops.items()})
        rows.update(
            {row: times * n for row, n in count.operators.rows().items()} if count.operators else {}
        )
    complete = all(count.operators for count, _ in parts)
    return StageCount(
        **work,
        uncounted_ops=dict(sorted(other_ops.items())),
        operators=Operators.of(rows) if complete else None,
    )


def _reused_step(point: Point) -> StageCount:
    """One step that uses what the cache holds.  Raises ValueError where the denoiser does not take
    the cache."""
    model, workload, recipe = point.model, point.workload, point.recipe
    pipeline = build_pipeline(
        model.denoiser,
        model.vae,
        (),
        device=META,
        dtype=DTYPES[recipe.dtype],
        seed=0,
        stages=("forward",),
    )
    pipeline.guidance = recipe.guidance
    inputs = example_inputs(
        pipeline,
        batch=workload.batch,
        channels=model.denoiser.in_channels,
        latent_shape=model.latent_shape(workload),
        device=META,
        dtype=DTYPES[recipe.dtype],
        seed=0,
    )
    pipeline.denoiser.prepare(inputs.latents)
    cache = apply_cache(
        pipeline.denoiser, CacheConfig(kind=recipe.cache.kind, every=2, warmup=1, last=0)
    )
    cache.begin(2)  # computed, then reused

    def step() -> Tensor:
        return pipeline.denoise_step(
            inputs.latents,
            inputs.t,
            -1.0,
            inputs.condition,
            inputs.unconditional if workload.guidance == "cfg" else None,
            1.0,
        )

    step()
    return stage_count(trace(step), own=not isinstance(model.denoiser, DiffusersDenoiser))
