"""Which evaluations of a trajectory are computed, reused, or handed to a smaller model: fixed in
advance.  No torch.

An evaluation is one call of the denoiser for one branch of guidance; a sampler of one stage makes
one a step.  The schedules are fixed, since a threshold on how much features move says nothing where
weights are random.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from models.bounds import Few, FewOrNone, Within, check_bounds

OwnCache = Literal["first-block", "taylor", "whole-step"]
PublicCache = Literal["first-block", "taylor", "whole-step", "magcache", "pab", "fastercache"]


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What is kept between evaluations, and when it is used."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    kind: PublicCache
    """first-block: the first block runs, what all others added is added again (ParaAttention's
    first-block cache); taylor: the same, extrapolated in the evaluation's index to first order
    (TaylorSeer, arXiv 2503.06923); whole-step: the output itself is used again.  Public models
    alone: magcache (arXiv 2506.09045), pab (pyramid attention broadcast, arXiv 2408.12588),
    fastercache (its reuse of attention, arXiv 2410.19355), each by diffusers' hooks."""
    every: Few
    """Between the first and the last evaluations one of so many is computed; 1 computes them
    all."""
    warmup: FewOrNone
    """Evaluations at the start that are computed; the very first always is."""
    last: FewOrNone
    """Evaluations at the end that are computed."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(PublicCache):
            raise ValueError(
                f"cache kind {self.kind!r} is not one of {', '.join(get_args(PublicCache))}"
            )
        check_bounds(self)

    def schedule(self, evaluations: int) -> tuple[bool, ...]:
        """Is evaluation i computed?  Counting goes on from the warm-up's last one."""
        begin = max(self.warmup, 1) - 1
        return tuple(
            i <= begin or i >= evaluations - self.last or (i - begin) % self.every == 0
            for i in range(evaluations)
        )


@dataclass(frozen=True, kw_only=True)
class DraftConfig:
    """A trajectory shared by a small model, the draft, and a large one (T-Stitch, arXiv
    2402.14167)."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    share: Annotated[float, Within(0.0, 1.0)]
    """Of the sampler's steps, rounded, that the draft takes: 0 is the large model alone, 1 the
    draft alone."""
    draft_runs: Literal["early", "late"]
    """early: the draft lays out, the large model finishes (draft, then verify); late: as where a
    light expert takes over at low noise."""

    def __post_init__(self) -> None:
        if self.draft_runs not in ("early", "late"):
            raise ValueError(f"draft_runs {self.draft_runs!r} is not one of early, late")
        check_bounds(self)

    def by_draft(self, steps: int) -> tuple[bool, ...]:
        """Does the draft take step i?"""
        drafted = int(self.share * steps + 0.5)
        return tuple(
            i < drafted if self.draft_runs == "early" else i >= steps - drafted
            for i in range(steps)
        )
