"""The blocks of docs/pencil.md, and the README's picture: from the pencil estimate to what is
counted and reached."""

from math import prod
from pathlib import Path

from committed_results import Result, of_h100
from h100_plan import PLANNED_GPU, table

from bench.core.load import load
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.count.closed import dit as closed_form
from bench.report.forecasts import resting_on
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.cross_model import cross_model
from bench.studies.pencil.published import published_chain
from bench.studies.pencil.waterfall import Bar, waterfall

PICTURE = Path("docs/waterfall.svg")


def bars(found: list[Result]) -> list[Bar]:
    """The waterfall, down to the newest H100's calibration, or to what others' H100 runs reach."""
    h100 = of_h100(found)
    if h100 and h100.calibration:
        return waterfall(Assumptions(), h100.calibration.reference)
    return waterfall(Assumptions(), published=published_chain(PLANNED_GPU))


def waterfall_block(found: list[Result]) -> str:
    """The picture, and what it says in one sentence."""
    drawn = bars(found)
    said = "; ".join(f"{b.factor} {b.value:.3g}" for b in drawn)
    first, *_, last = chain = [b for b in drawn if not b.factor.startswith("extra")]
    ends = [b for b in chain if b.factor.startswith("utilisation reached")] or [last]
    reached = " and ".join(f"{_minutes(b)} with {b.factor.split(': ')[-1]}" for b in ends)
    fewer = " and ".join(f"{first.value / b.value:.0f}" for b in ends)
    most = min(chain[1:], key=lambda b: b.multiplier)
    return (
        f"![Minutes of video per H100-hour, factor by factor: {said}]({PICTURE})\n\n"
        f"The pencil's {first.value:.3g} minutes of video per H100-hour become {reached}"
        f" ({last.provenance}): {fewer} times fewer. What it lost most by: {most.factor}"
        f" (times {most.multiplier:.3g}). [Factor by factor](docs/pencil.md).\n"
    )


def chain_block(found: list[Result]) -> str:
    """The same as a table, and what it rests on."""
    h100 = of_h100(found)
    basis = (
        f"Down to the card measured in [{h100.path.name}](../{h100.path}/{h100.report})."
        if h100
        else (
            "No H100 record is in this repository yet, so the last two factors are what others'"
            f" H100 runs reach: {resting_on(published_chain(PLANNED_GPU).fast)}. 184,320 tokens are"
            " more than any published row has, so both are extrapolated"
            " ([evidence](evidence.md))."
        )
    )
    rows = [
        (b.factor, f"{b.multiplier:.3g}" if i else "", _minutes(b), b.provenance)
        for i, b in enumerate(bars(found))
    ]
    head = ["factor", "times", "minutes of video per H100-hour", "provenance"]
    return f"{basis}\n\n" + table(head, rows)


def _minutes(b: Bar) -> str:
    """With its interval, where it has one of its own."""
    if b.interval is None:
        return f"{b.value:.3g}"
    return f"{b.value:.3g} ({b.interval[0]:.3g} to {b.interval[1]:.3g})"


def pencil_block(found: list[Result]) -> str:
    """What is counted of the chain, in words."""
    a, model, minute = Assumptions(), load(Model, MODEL), load(Workload, WORKLOAD)
    start, macs, _, counted, *_ = waterfall(a)
    sora, *_, by_token, _ = [row.as_dict() for row in cross_model(a, load(Gpu, PLANNED_GPU))]
    latents = model.latent_shape(minute)
    step, tokens = (
        closed_form.dit_forward(model.denoiser, latents, 1),
        prod(model.denoiser.grid(latents)),
    )
    hours = [row["datasheet"]["seconds"] / 3600 for row in (sora, by_token)]
    return "\n".join(
        [
            (
                f"- DiT's \"{a.dit_step / 1e9:.0f} GFLOP\" are multiply-accumulates, and an H100's"
                f" datasheet counts two FLOPs each: {start.value:.3g} minutes an hour become"
                f" {macs.value:.3g}."
            ),
            (
                f"- Attention over the {tokens:,} tokens of a minute is quadratic: a step takes"
                f" {sum(step.values()) / 1e15:.2f} PFLOP, {step['attention'] / 1e15:.2f} of them"
                f" attention (counted). At 100 % of the datasheet that makes {counted.value:.3g}"
                " minutes an hour."
            ),
            (
                "- FLOPs alone compare unlike things: made token by token (a VideoPoet-like 8 B),"
                f" the same minute takes {sora['flops'] / by_token['flops']:.0f} times fewer of"
                f" them, and at the H100's datasheet {hours[1]:.2g} hours where diffusion takes"
                f" {hours[0]:.2g}, since each token reads all the weights (counted work at claimed"
                " rates)."
            ),
            (
                "- What a card really reaches, the VAE, the text encoder and guidance come on top:"
                + (
                    " measured."
                    if of_h100(found)
                    else " extrapolated from others' runs until a record of an H100 is here."
                )
            ),
            "",
        ]
    )
