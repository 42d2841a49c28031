"""Is attention right at the size that is timed?  Random query rows of the model's own call against
a float64 reference.

A kernel that counts its offsets in 32 bits goes wrong where a stride times a row passes 2^31, and
is not slower for it: at 184,320 tokens of width 5,120 the values are a view into the fused
projection, whose last row lies 2.83e9 elements in.  So the calls that the denoiser itself makes are
looked into, with its own strided operands, before any of its time counts.

It happens within the stage's first call, which is warm-up in any case: no call is made for it, and
a wrong kernel ends the point at its first block.  What a compiler has fused cannot be looked into,
so a compiled point runs eagerly up to its first whole attention, before it is compiled.  Of each
first call the whole output must be finite too.

Shapes: B batch, A heads, N queries, L keys, E head_dim.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bench.core.specs.point import Point
from bench.measure.attention.watching import WINDOWS, Enough, watching
from bench.measure.recipes.graphs import ungraphed
from bench.results.records import Correctness
from models.dit.windowed import WindowPlan
from models.pipeline import PARTS_OF_STAGE
from models.spec import DiTConfig

ROWS = 256
SHAPES = 8  # of attention calls that are looked into; the largest is what the record keeps
SEED = 0
# Relative L2 norm.  A fused kernel rounds the softmax's numerators and the output to the operands'
# format, and sums in float32: FlashAttention (arXiv 2205.14135) and PyTorch test it at a few units
# in the last place.  Five roundings of bfloat16 (2^-8), eight of float16 (2^-11); float32 kernels
# may differ in exp; TensorFloat-32 rounds as float16 does.  Wrong rows are off by 0.1 and more.
TOLERANCE = {"bf16": 2e-2, "fp16": 4e-3, "tf32": 4e-3, "fp32": 1e-3}
# Operands quantised to 8 bits: 2^-4 a value in e4m3.  FlashAttention-3 (arXiv 2407.08608) and
# SageAttention (arXiv 2410.02367) print 2 to 9 % on distributions with outliers.
EIGHT_BIT_TOLERANCE = 0.15
EIGHT_BIT = ("fp8", "sage", "int8")  # in the name of a recipe's attention


class WrongNumbers(Exception):
    """What a point computes is not what it should; the text says how far off, `correctness` what
    was read."""

    def __init__(self, text: str, correctness: Correctness | None):
        super().__init__(text)
        self.correctness = correctness


@dataclass(frozen=True)
class Attended:
    """One attention call of a model: operands as they lay in memory, and what came out."""

    q: Tensor
    """(B, A, N, E)."""
    k: Tensor
    """(B, A, L, E), or fewer heads with shared keys."""
    v: Tensor
    out: Tensor
    mask: Tensor | None = None
    """Broadcasts to (B, A, N, L): true where a query sees a key, or added to its score."""
    causal: bool = False
    scale: float | None = None
    seen_by: Callable[[Tensor], Tensor] | None = None
    """Of windowed attention: query rows (r,) -> which keys each sees, (r, L)."""


_READ: dict[str, Correctness] = {}
_MISSING: dict[str, str] = {}


def correctness_of(point: Point) -> Correctness | None:
    """What the last measurement of this point found, once; None where nothing was compared."""
    return _READ.pop(point.subject, None)


def correctness_missing(point: Point) -> str:
    """Why the last measurement of this point compared nothing, once."""
    return _MISSING.pop(point.subject, "no attention call was seen")


def checked(point: Point, calls: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """A point's stages, of which the first that runs the denoiser is checked at its first call.

    Raises WrongNumbers, then or (compiled) now."""
    stage = next((stage for stage in point.stages if PARTS_OF_STAGE[stage] == "denoiser"), None)
    _MISSING.pop(point.subject, None)
    if stage is None:
        _MISSING[point.subject] = "no stage runs the denoiser"
        return calls
    ran = getattr(calls[stage], "recipe", point.recipe)  # with the backend that was chosen
    check = Check(point, tolerance(ran.dtype, ran.attention))
    if point.recipe.compile == "none":
        return calls | {stage: CheckedOnce(calls[stage], check, look=True)}
    denoiser = point.model.denoiser
    if isinstance(denoiser, DiTConfig) and denoiser.attention == "windowed":
        _MISSING[point.subject] = "uncompiled, windowed attention would write all scores out"
    else:
        check.eagerly(calls[stage])
    return calls | {stage: CheckedOnce(calls[stage], check, look=False)}


class CheckedOnce:
    """A stage's call, whose first run is checked; it has whatever else the call has."""

    def __init__(self, call: Callable[..., Any], check: "Check", look: bool):
        """look: into its attention, not at its output alone."""
        self._call, self._check, self._look = call, check, look

    def __call__(self, *args: Any) -> Any:
        if self._check.called:
            return self._call(*args)
        self._check.called = True
        # Nothing can be read back while a graph is captured, so this one call runs without.
        with ungraphed(), self._check.looking() if self._look else contextlib.nullcontext():
            out = self._call(*args)
        self._check.output(out)
        return out

    @property
    def check_s(self) -> float:
        """Seconds of the first run that went into the check."""
        return self._check.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


@dataclass
class Check:
    """Of one point."""

    point: Point
    allowed: float
    """Relative error."""
    called: bool = False
    shapes: set[tuple] = field(default_factory=set)
    largest: int = 0
    """Scores of the call that the record keeps."""
    read: Correctness | None = None
    seconds: float = 0.0
    """That the comparisons took."""

    def eagerly(self, call: Callable[..., Any]) -> None:
        """Run what will be compiled uncompiled, as far as its first attention over all tokens."""
        tokens = self.point.model.tokens(self.point.workload)
        uncompiled = torch.compiler.set_stance("force_eager")
        with contextlib.suppress(Enough), torch.inference_mode(), uncompiled, self.looking(tokens):
            call()

    def looking(self, stop: int | None = None) -> contextlib.AbstractContextManager[None]:
        """Every attention of a model that runs within is looked into.  stop: raise Enough after one
        with so many query rows."""

        def see(attend: Callable[..., Tensor], *args: Any, **given: Any) -> Tensor:
            out = attend(*args, **given)
            call = _attended(out, *args, **given)
            if call is not None:
                self.look(call)
                if stop is not None and call.q.shape[0] * call.q.shape[2] >= stop:
                    raise Enough
            return out

        return watching(see, WINDOWS)

    def look(self, call: Attended) -> None:
        """Compare a call of a shape that was not seen yet.  Raises WrongNumbers."""
        shape = (call.q.shape, call.k.shape)
        if shape in self.shapes or len(self.shapes) == SHAPES:
            return
        if call.q.is_cuda and torch.cuda.is_current_stream_capturing():
            return  # nothing can be read back from a graph's capture
        self.shapes.add(shape)
        if call.q.is_cuda:
            torch.cuda.synchronize(call.q.device)  # what was queued before is no part of the check
        began = time.perf_counter()
        try:
            read = compared(call, self.allowed)
        except torch.OutOfMemoryError as error:  # a point that just fits is not lost for its check
            line = str(error).splitlines()[0]
            _MISSING[self.point.subject] = f"no memory for the float64 reference: {line}"
            return
        finally:
            self.seconds += time.perf_counter() - began
        if read is None:
            return
        scores = call.q[..., 0].numel() * call.k.shape[2]
        if scores > self.largest:
            self.largest, self.read = scores, read
            _READ[self.point.subject] = read
        insist(read)

    def output(self, out: Any) -> None:
        """Raises WrongNumbers where a number of the stage's output is not finite."""
        bad = sum(
            int((~torch.isfinite(x)).sum()) for x in tree_leaves(out) if isinstance(x, Tensor)
        )
        if not bad:
            return
        read = self.read and self.read.model_copy(update={"finite": False})
        if read is not None:
            _READ[self.point.subject] = read
        raise WrongNumbers(f"wrong numbers: {bad:,} of the stage's output are not finite", read)


def insist(read: Correctness) -> None:
    """Raises WrongNumbers where a reading is over its tolerance."""
    if read.relative_error is None or read.relative_error > read.tolerance:
        raise WrongNumbers(_words(read), read)


def _words(read: Correctness) -> str:
    over = f"wrong numbers: attention over {read.tokens:,} keys"
    if read.relative_error is None:
        return f"{over} gives numbers that are not finite"
    return (
        f"{over} is {read.relative_error:.3g} off a float64 reference in {read.rows} random "
        f"rows (relative L2 norm), {read.tolerance:g} is allowed"
    )


def tolerance(dtype: str, backend: str) -> float:
    """The relative error that an attention kernel may have, by a recipe's dtype and attention."""
    return EIGHT_BIT_TOLERANCE if any(word in backend for word in EIGHT_BIT) else TOLERANCE[dtype]


@torch.no_grad()
def compared(call: Attended, allowed: float) -> Correctness | None:
    """Random (sample, head, row) triples of a call against softmax(Q K^T / sqrt(E)) V in float64, a
    head at a time: its keys and values in float64 are 0.4 GB at 184,320 tokens.  None where no row
    sees a key."""
    batch, heads, queries, _ = call.q.shape
    rows = min(ROWS, batch * heads * queries)
    drawn = torch.randint(
        batch * heads * queries, (rows,), generator=torch.Generator().manual_seed(SEED)
    )
    error = norm = torch.zeros((), dtype=torch.float64, device=call.q.device)
    compared_rows = 0
    for head in (drawn // queries).unique().tolist():
        chosen = (drawn[drawn // queries == head] % queries).to(call.q.device)
        b, a = divmod(head, heads)
        reference, kept = _reference(call, b, a, chosen)
        given = call.out[b, a, chosen[kept]].double()
        error = error + (given - reference).square().sum()
        norm = norm + reference.square().sum()
        compared_rows += len(given)
    if not compared_rows:
        return None
    relative = (error.sqrt() / norm.sqrt().clamp(min=torch.finfo(torch.float64).tiny)).item()
    finite = relative < float("inf")  # and no NaN
    return Correctness(
        rows=compared_rows,
        tokens=call.k.shape[2],
        relative_error=relative if finite else None,
        finite=finite,
        tolerance=allowed,
    )


def _reference(call: Attended, b: int, a: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows (r,) of one head -> those of them that see a key, as (r', E) numbers and (r,) truths."""
    length = call.k.shape[2]
    shared = call.q.shape[1] // call.k.shape[1]
    q, k, v = (
        call.q[b, a, rows].double(),
        call.k[b, a // shared].double(),
        call.v[b, a // shared].double(),
    )
    scores = q @ k.T * (call.scale or q.shape[-1] ** -0.5)  # (r, L)
    if call.mask is not None:
        mask = call.mask.expand(*call.q.shape[:2], call.q.shape[2], length)[b, a, rows]
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    if call.causal:
        scores = scores.masked_fill(
            torch.arange(length, device=rows.device) > rows[:, None], -torch.inf
        )
    if call.seen_by is not None:
        scores = scores.masked_fill(~call.seen_by(rows), -torch.inf)
    kept = ~(scores == -torch.inf).all(-1)
    return scores[kept].softmax(-1) @ v, kept


def _attended(
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | WindowPlan | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Attended | None:
    """A call with SDPA's arguments, own attention's or windowed attention's, whose fourth is its
    plan; None for what has no heads."""
    if isinstance(attn_mask, WindowPlan):
        return _by_windows(out, query, key, value, attn_mask)
    if query.ndim != 4:
        return None
    return Attended(query, key, value, out, attn_mask, is_causal, scale)


def _by_windows(out: Tensor, q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Attended:
    @torch.inference_mode(False)  # the plan keeps what is made here, for training too
    def seen_by(rows: Tensor) -> Tensor:
        (_, back), (place, first, last) = plan.order, plan.seen  # places in tile order
        own = back[rows]
        sees = (place[:, None] >= first[:, own, None]) & (
            place[:, None] < last[:, own, None]
        )  # (3, r, N)
        return sees.all(0)[:, back]

    return Attended(q, k, v, out, seen_by=seen_by)
