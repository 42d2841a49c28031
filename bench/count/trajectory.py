"""FLOPs of a whole trajectory under a cache: what was executed, times what one evaluation of its sort counts."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from bench.count.flops import trace
from models.caching import Executed, apply_cache
from models.schedules import CacheConfig


@dataclass(frozen=True)
class EvaluationFlops:
    """One forward of the denoiser: in full, and with what its cache holds."""

    computed: int
    reused: int

    def of(self, executed: Iterable[Executed]) -> int:
        """FLOPs of all that was executed."""
        ran = Counter(e.computed for e in executed)
        return ran[True] * self.computed + ran[False] * self.reused


def evaluation_flops(denoiser: nn.Module, config: CacheConfig, x: Tensor, t: Tensor, condition: dict[str, Tensor]
                     ) -> EvaluationFlops:
    """Count both sorts of evaluation on meta tensors.  The denoiser is left without a cache.

    Raises ValueError where it does not take this one, UncountedOperator as `trace` does."""
    cache = apply_cache(denoiser, CacheConfig(kind=config.kind, every=2, warmup=1, last=0))     # computed, then reused
    try:
        cache.begin(2)
        traced = [sum(trace(_evaluation(denoiser, x, t, condition)).flops_by_class().values()) for _ in range(2)]
    finally:
        cache.remove()
    return EvaluationFlops(*traced)


def _evaluation(denoiser: nn.Module, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Callable[[], Tensor]:
    return lambda: denoiser(x, t, **condition)
