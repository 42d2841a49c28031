"""One stage's counts from its trace; a long decode's from two short ones."""

from collections import Counter

import torch

from bench.core.specs.model import Model
from bench.count import traffic
from bench.count.checks import check
from bench.count.closed import dit as closed_form
from bench.count.rules import PRODUCT_CLASSES
from bench.count.trace import Trace, trace
from bench.results.counts import Operators, StageCount
from models.pipeline import VideoPipeline
from models.vae.parts import decode_in_parts
from models.vae.tiling import Tiling, few_parts


def stage_count(traced: Trace, *, own: bool) -> StageCount:
    """Sum a stage's operators.  own: of our own modules."""
    ops = traced.ops
    return StageCount(
        **{f"{kind}_flops": flops for kind, flops in traced.flops_by_class().items()},
        norm_flops=sum(op.norm_flops for op in ops),
        bytes_modelled_min=traffic.modelled_min(ops),
        bytes_modelled_max=traffic.modelled_max(ops),
        bytes_elementwise=traffic.elementwise(ops),
        bytes_largest_operator=traffic.largest_operator(ops),
        bytes_peak_activations=traced.peak_bytes,
        kernels=len(ops),
        uncounted_ops=dict(
            sorted(Counter(op.name for op in ops if op.kind not in PRODUCT_CLASSES).items())
        ),
        operators=traffic.operators(ops, own=own),
    )


def count_decode_in_parts(
    model: Model, pipeline: VideoPipeline, latents: torch.Tensor, chunk: int, tiling: Tiling | None
) -> StageCount:
    """All inner parts cost the same, so two short clips tell what one costs; tracing a minute would
    take one."""

    def traced(frames: int) -> StageCount:
        short = latents[:, :, :frames]
        counted = trace(lambda: decode_in_parts(pipeline.vae, short, chunk=chunk, tiling=tiling))
        check(
            model,
            "vae_decode",
            counted,
            closed_form.vae_decode(
                model.vae, tuple(short.shape[2:]), latents.shape[0], chunk, tiling
            ),
        )
        return stage_count(counted, own=True)

    frames, few = latents.shape[2], few_parts(model.vae, latents.shape[2], chunk)
    long = traced(few)
    if few == frames:
        return long
    short, more = traced(few - chunk), (frames - few) // chunk
    total = {}
    for name, value in long:
        if name == "uncounted_ops":
            total[name] = {
                op: n + more * (n - short.uncounted_ops.get(op, 0)) for op, n in value.items()
            }
        elif name == "operators":
            total[name] = _more(value.rows(), short.operators.rows(), more)
        elif name == "bytes_largest_operator":
            total[name] = value
        else:  # the peak grows too: by the finished frames, for which there is room from the start
            total[name] = value + more * (value - getattr(short, name))
    return StageCount(**total)


def _more(long: Counter[tuple], short: Counter[tuple], more: int) -> Operators:
    """The long clip's operators and `more` times what it has over the short one.

    Those on the whole clip are as many in both and grow with it: m, FLOPs and bytes go on as they
    went."""
    same = {
        row: n + more * (n - short[row])
        for row, n in long.items()
        if short[row] and n >= short[row]
    }
    grown = sorted((row, n) for row, n in long.items() if row not in same)
    began = sorted((row, n) for row, n in short.items() if row not in same)
    total = Counter(same)
    for i, ((kind, m, n, k, *work), calls) in enumerate(grown):
        pair = (
            began[i]
            if len(began) == len(grown) and began[i][0][0] == kind and began[i][1] == calls
            else None
        )
        if pair is not None:
            (_, before_m, _, _, *before), _ = pair
            m += more * (m - before_m)
            work = [now + more * (now - then) for now, then in zip(work, before, strict=True)]
        total[(kind, m, n, k, *work)] += calls
    return Operators.of(total)
