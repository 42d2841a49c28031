"""From the pencil's 5.03 minutes of video per H100-hour to the calibrated figure, one named factor
at a time.

Each bar's value is the one before times its multiplier, so the multipliers multiply out exactly.
Without a calibration the bars end at what others' runs of the card reach (bench.studies.pencil.
published), or at 100 % of the datasheet rate where nothing is published of it; with one they end at
the predicted figure, guidance off.  A last bar, apart from the product, shows guidance on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.count.closed import dit as closed_form
from bench.studies.pencil.assumptions import Assumptions

if TYPE_CHECKING:
    from bench.calibrate.calibration import Reference
    from bench.calibrate.predict import Estimate
    from bench.studies.pencil.published import PublishedChain


@dataclass(frozen=True)
class Bar:
    """One step of the waterfall."""

    factor: str
    multiplier: float
    value: float
    """Minutes of video per GPU-hour once this factor is in."""
    provenance: str
    extra: bool = False
    """Stands apart: not one of the factors that lead to the calibrated figure."""
    interval: tuple[float, float] | None = None
    """90 % of the value, where it has an interval of its own."""

    def as_dict(self) -> dict[str, object]:
        return vars(self)


def waterfall(
    a: Assumptions,
    reference: "Reference | None" = None,
    estimate: "Estimate | None" = None,
    published: "PublishedChain | None" = None,
    counted: tuple[Model, Workload] | None = None,
) -> list[Bar]:
    """Bars from the pencil estimate to 100 % of the datasheet, or on to the calibrated figure or to
    what is published of the card.

    estimate: of the reference's own point, where utilisation is to be split by operator class;
    counted: another model and video than the published estimate's."""
    dit, image = load(Model, "dit-xl-2"), load(Workload, "image-512")
    sora, minute = counted or (load(Model, MODEL), load(Workload, WORKLOAD))
    dit_flops = closed_form.dit_forward(dit.denoiser, dit.latent_shape(image), 1)
    sora_flops = closed_form.dit_forward(sora.denoiser, sora.latent_shape(minute), 1)
    # The pencil's step: DiT's linear and attention parts, both scaled by parameters and by frames.
    scale = a.params_ratio * a.pixels_ratio * a.latent_frames
    scaled_attention = dit_flops["attention"] * scale
    pencil_step = a.sora_video_printed / a.steps
    linear, attention = sora_flops["linear"], sora_flops["attention"]

    def minutes(step_flops: float) -> float:
        return a.h100_flops_per_s * 3600 / (step_flops * a.steps) * a.video_s / 60

    values = [
        ("pencil estimate", minutes(pencil_step), "claimed"),
        ("a multiply-accumulate is 2 FLOPs", minutes(2 * pencil_step), "counted"),
        (
            "per-token parameters: the preset's own linear layers",
            minutes(linear + scaled_attention),
            "counted",
        ),
        ("attention is quadratic in tokens", minutes(linear + attention), "counted"),
    ]
    at_datasheet = minutes(linear + attention)
    if reference is None and published is not None:
        return _bars([*values, *_reached(published)], _guidance(published), "extrapolated")
    if reference is None:
        return _bars(values, guidance=0.5, guidance_provenance="counted")
    at_ceiling = at_datasheet * reference.gemm_ceiling_flops_per_s / a.h100_flops_per_s
    device = "CPU" if reference.gpu == "cpu" else reference.gpu
    ceiling = f"GEMM ceiling of this {device} instead of the H100's datasheet"
    values.append((ceiling, at_ceiling, "measured"))
    if estimate is None:
        values += [
            ("utilisation of the denoiser", reference.denoise_minutes, reference.provenance),
            ("VAE decode and text encoder", reference.minutes.value, reference.provenance),
        ]
        guidance = reference.guided_minutes / reference.minutes.value
    else:
        ideal_s = 3600 * a.video_s / 60 / at_ceiling
        values += by_class(estimate, a, ideal_s * attention / (linear + attention))
        guidance = guided_minutes(estimate, a) / estimate.minutes_per_gpu_hour.value
    return _bars(values, guidance, reference.provenance)


def _reached(published: "PublishedChain") -> list[tuple[str, Quantity, str]]:
    """Two bars: with FlashAttention-2 as most published rows, then with all that makes them
    fast."""
    reached = f"utilisation reached by others' {published.gpu} runs"
    return [
        (
            f"{reached}: FlashAttention-2, not compiled",
            published.flash2.minutes_per_gpu_hour,
            published.flash2.provenance,
        ),
        (
            f"{reached}: FlashAttention-3 or cuDNN, compiled",
            published.fast.minutes_per_gpu_hour,
            published.fast.provenance,
        ),
    ]


def _guidance(published: "PublishedChain") -> float:
    """Minutes with guidance on over those without: the steps twice, all else once."""
    denoise, video = published.fast.stages["denoise"].value, published.fast.video_s.value
    return video / (video + denoise)


def _bars(
    values: Sequence[tuple[str, float | Quantity, str]], guidance: float, guidance_provenance: str
) -> list[Bar]:
    """Each value as a multiple of the one before, and guidance apart."""
    bars: list[Bar] = []
    for factor, found, provenance in values:
        value = found.value if isinstance(found, Quantity) else found
        interval = (found.low, found.high) if isinstance(found, Quantity) else None
        previous = bars[-1].value if bars else value
        bars.append(Bar(factor, value / previous, value, provenance, interval=interval))
    previous = bars[-1].value
    extra = "extra: with classifier-free guidance"
    bars.append(Bar(extra, guidance, previous * guidance, guidance_provenance, extra=True))
    return bars


def by_class(
    estimate: "Estimate", a: Assumptions, attention_s: float
) -> list[tuple[str, float, str]]:
    """One factor after the other: products of each class at their fitted rate, what holds no
    product, then the stages.

    attention_s: of a video's attention at the GEMM ceiling."""
    seconds, classes = (
        {k: q.value for k, q in estimate.stages.items()},
        class_seconds(estimate, a.steps),
    )

    def minutes(s: float) -> float:
        return 3600 * a.video_s / 60 / s

    denoise = seconds["denoise"]
    return [
        (factor, value, estimate.provenance)
        for factor, value in (
            ("utilisation of the linear layers", minutes(classes["linear"] + attention_s)),
            ("utilisation of attention", minutes(classes["linear"] + classes["attention"])),
            ("norms, elementwise work, launches", minutes(denoise)),
            ("VAE decode", minutes(denoise + seconds["vae_decode"])),
            (
                "text encoder",
                estimate.minutes_per_gpu_hour.value,
            ),  # what `predict` says, to the last digit
        )
    ]


def class_seconds(estimate: "Estimate", steps: int) -> dict[str, float]:
    """Seconds of all steps in three classes: linear, attention (of every kind), and the rest."""
    out = {"linear": 0.0, "attention": 0.0, "rest": 0.0}
    for name, value in estimate.step_s_by_class.items():
        kind = "linear" if name == "linear" else "attention" if "attention" in name else "rest"
        out[kind] += steps * value
    return out


def guided_minutes(estimate: "Estimate", a: Assumptions) -> float:
    """With guidance on: twice the denoising, and the empty prompt encoded too."""
    seconds = {k: q.value for k, q in estimate.stages.items()}
    return (
        3600
        * a.video_s
        / 60
        / (2 * seconds["denoise"] + seconds["vae_decode"] + 2 * seconds.get("text_encode", 0.0))
    )
