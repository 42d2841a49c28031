"""Row A13 with time: what one unit of output costs across models, and whether multipliers or memory
set the pace.

    seconds of a part = max(FLOPs / rate, bytes / bandwidth)   (the roofline: Williams et al. 2009)

The pencil compares FLOPs alone.  A model that makes one token a call reads all its weights for it,
so its time is that of the bytes; a diffusion step reads them for every token of the clip at once.
FLOPs and bytes are counted in closed form (bytes: a lower bound, each operand once), so this needs
no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.errors import UserError
from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import Model
from bench.core.specs.recipe import DTYPE_BYTES
from bench.core.specs.workload import Workload
from bench.core.units import SECONDS_PER_HOUR
from bench.count.closed import ar as closed_autoregressive
from bench.count.closed import dit as closed_form
from bench.count.closed.bytes import dit_bytes
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.same_clip import Bound
from models.ar.spec import AutoregressiveConfig

DTYPE = "bf16"
"""At the datasheet; at measured ceilings it is the recipe's."""
TOKEN_MODEL = "videopoet-8b"
SORA, IMAGE = "Sora, one minute of video (sora-20b, by diffusion)", "DiT-XL/2, one 512x512 image"
TOKENS, TOKENS_BATCHED = (
    f"the same minute token by token ({TOKEN_MODEL})",
    "the same, as many clips at once as fit the card",
)
LLAMA, GPT4 = "Llama 2 70B, 1,000 tokens", "GPT-4, 1,000 tokens"


@dataclass(frozen=True)
class Part:
    """Calls that are alike."""

    calls: int
    flops: float
    """Of one call."""
    bytes: float

    def seconds(self, rates: "Rates") -> float:
        return self.calls * max(self.flops / rates.flops_per_s, self.bytes / rates.bytes_per_s)


@dataclass(frozen=True)
class Rates:
    """FLOPs and bytes that a device handles a second."""

    words: str
    flops_per_s: float
    bytes_per_s: float
    dtype: str = DTYPE


@dataclass(frozen=True)
class Unit:
    """One unit of output."""

    name: str
    parts: tuple[Part, ...]
    note: str = ""
    share: float = 1.0
    """Share of the parts' work: one over the number of clips that share the calls."""

    @property
    def flops(self) -> float:
        return self.share * sum(p.calls * p.flops for p in self.parts)

    @property
    def bytes(self) -> float:
        return self.share * sum(p.calls * p.bytes for p in self.parts)

    def seconds(self, rates: Rates) -> float:
        """At the roofline: the least it can take at these rates."""
        return self.share * sum(p.seconds(rates) for p in self.parts)

    def bound(self, rates: Rates) -> Bound:
        """By the part that takes most."""
        longest = max(self.parts, key=lambda p: p.seconds(rates))
        compute = longest.flops / rates.flops_per_s >= longest.bytes / rates.bytes_per_s
        return "compute-bound" if compute else "bandwidth-bound"


def units(a: Assumptions, memory_bytes: int | None, dtype: str = DTYPE) -> list[Unit]:
    """The units that A13 compares, and the same minute made token by token.  They make latents
    alone: VAE and text encoder are left out.

    memory_bytes: of the card, for the clips that fit it at once; None leaves that row out."""
    element = DTYPE_BYTES[dtype]
    minute, image = load(Workload, "sora-1min-512"), load(Workload, "image-512")

    def diffusion(name: str, model: Model, workload: Workload) -> Unit:
        shape = model.latent_shape(workload)
        return Unit(
            name,
            (
                Part(
                    a.steps,
                    sum(closed_form.dit_forward(model.denoiser, shape, 1).values()),
                    dit_bytes(model.denoiser, shape, 1, element),
                ),
            ),
            f"{a.steps} steps, guidance off",
        )

    def tokens(params: float) -> tuple[Part, ...]:
        return (Part(a.document_tokens, 2 * params, element * params),)

    alone = "one request at a time; weights alone, the cache of 1,000 tokens is under 1 % of them"
    return [
        diffusion(SORA, load(Model, "sora-20b"), minute),
        diffusion(IMAGE, load(Model, "dit-xl-2"), image),
        Unit(LLAMA, tokens(a.llama_params), alone),
        Unit(GPT4, tokens(a.gpt4_active_params), f"{alone}; two experts read"),
        *_token_units(load(Model, TOKEN_MODEL), minute, memory_bytes, element),
    ]


def _token_units(
    model: Model, workload: Workload, memory_bytes: int | None, element: int
) -> list[Unit]:
    config, shape = model.denoiser, model.latent_shape(workload)
    assert isinstance(config, AutoregressiveConfig)
    plan = config.plan(shape)

    def unit(name: str, rows: int, note: str) -> Unit:
        prefill = closed_autoregressive.prefill_flops(config, rows, plan)
        decode = closed_autoregressive.decode_flops(config, rows, plan.cache_length)
        return Unit(
            name,
            (
                Part(
                    plan.prefill_calls,
                    sum(prefill.values()),
                    closed_autoregressive.prefill_bytes(config, rows, plan, element),
                ),
                Part(
                    plan.decode_calls,
                    sum(decode.values()),
                    closed_autoregressive.decode_bytes(config, rows, plan.cache_length, element),
                ),
            ),
            note,
            1 / rows,
        )

    alone = unit(
        TOKENS,
        1,
        f"{plan.decode_calls:,} tokens, one a call, in {plan.prefill_calls} windows; a cache of "
        f"{plan.cache_length:,} on average",
    )
    if memory_bytes is None:
        return [alone]
    weights = element * closed_autoregressive.autoregressive_parameters(config)
    rows = int(
        (memory_bytes - weights)
        // (element * closed_autoregressive.cache_elements(config, 1, plan.context))
    )
    return [alone] + (
        [unit(TOKENS_BATCHED, rows, f"{rows} clips; each has a cache of its own")]
        if rows > 1
        else []
    )


@dataclass(frozen=True)
class CrossRow:
    """A unit with its times."""

    unit: Unit
    datasheet: Rates
    ceilings: tuple[Rates, Unit] | None
    """Measured ceilings, and the unit in their dtype."""
    calibrated_s: Quantity | None
    """From a measured calibration, with its interval; None where nothing was measured for it."""
    calibrated_how: str | None
    """measured, fitted or extrapolated."""
    usd_per_hour: tuple[float, float] | None

    def as_dict(self) -> dict[str, Any]:
        def at(rates: Rates, unit: Unit, provenance: str) -> dict[str, Any]:
            return {
                "rates": rates.words,
                "dtype": rates.dtype,
                "seconds": unit.seconds(rates),
                "bound": unit.bound(rates),
                "bytes_modelled_min": unit.bytes,
                "flops_per_byte": unit.flops / unit.bytes,
                "balance_flops_per_byte": rates.flops_per_s / rates.bytes_per_s,
                "provenance": provenance,
            }

        return {
            "id": "A13",
            "name": self.unit.name,
            "flops": self.unit.flops,
            "datasheet": at(self.datasheet, self.unit, "claimed"),
            "ceilings": at(*self.ceilings, "extrapolated") if self.ceilings else None,
            "calibrated_s": self.calibrated_s.as_dict() if self.calibrated_s else None,
            "calibrated_provenance": self.calibrated_how,
            "usd": self.usd.as_dict() if self.usd else None,
            "note": self.unit.note,
        }

    @property
    def usd(self) -> Quantity | None:
        """At the price range of the card that the seconds are of: the calibrated, else those at the
        ceilings, else at the datasheet."""
        if self.usd_per_hour is None:
            return None
        low, high = (p / SECONDS_PER_HOUR for p in self.usd_per_hour)
        rates, unit = self.ceilings or (self.datasheet, self.unit)
        seconds = self.calibrated_s or Quantity.exactly(unit.seconds(rates))
        return seconds.times(Quantity((low + high) / 2, low, high))


def datasheet_rates(gpu: Gpu) -> Rates:
    """Raises UserError where the datasheet lacks one."""
    if DTYPE not in gpu.peak_flops_per_s or gpu.bandwidth_bytes_per_s is None:
        raise UserError(
            f"gpu {gpu.name}: its datasheet in configs/gpus has no {DTYPE} rate or no bandwidth"
        )
    return Rates(f"datasheet of {gpu.name}", gpu.peak_flops_per_s[DTYPE], gpu.bandwidth_bytes_per_s)


def cross_model(
    a: Assumptions,
    gpu: Gpu,
    ceilings: Rates | None = None,
    measured_card: Gpu | None = None,
    calibrated: Mapping[str, tuple[Quantity, str]] | None = None,
) -> list[CrossRow]:
    """All rows.  ceilings, measured_card: of the device that was measured, its price where it has
    one; calibrated: name of a unit -> (seconds with their interval, provenance)."""
    card = gpu if ceilings is None else measured_card
    price = card.price_usd_per_hour if card else None
    own = (
        {unit.name: unit for unit in units(a, gpu.memory_bytes, ceilings.dtype)} if ceilings else {}
    )
    return [
        CrossRow(
            unit,
            datasheet_rates(gpu),
            (ceilings, own[unit.name]) if ceilings and unit.name in own else None,
            *(calibrated or {}).get(unit.name, (None, None)),
            usd_per_hour=(price.low, price.high) if price else None,
        )
        for unit in units(a, gpu.memory_bytes)
    ]
