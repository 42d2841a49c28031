"""A calibration carried to a card that was not measured: class efficiencies stay, ceilings are the
other card's.

The other card's ceilings are, in this order: those measured on it (another result's), the measured
ones scaled by the two datasheets, or a usual share of its datasheet where the calibrated card has
none.  Whatever it is, the outcome is `extrapolated`, and its interval is wider:

- class by class (SPREAD) by how shares of the datasheet differ from card to card in published
  latencies (`ldt-bench calibrate --from configs/reference/published_latency.csv`): linear 0.64 to
  0.86 over six cards, 11 % as a standard deviation; attention 0.24 to 0.60, 38 %, of which 25 %
  stays where the card's own attention ceiling was measured.  Convolution has no rows of its own and
  takes the wider of the two, memory 10 % (copies reach 77 to 87 %);
- all classes at once (COMMON) by how far the ceilings themselves may be wrong.

Nothing is carried between a CPU and a GPU.
"""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from bench.calibrate.calibration import Calibration, Ceiling, Fit, ProbedSizes, kind_of
from bench.calibrate.cost.ceilings import Ceilings
from bench.calibrate.cost.parameters import NAMES, PARAMETERS
from bench.core.errors import UserError
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu

SPREAD = {
    "linear_efficiency": 0.11,
    "attention_efficiency": 0.38,
    "conv_efficiency": 0.38,
    "memory_efficiency": 0.10,
    "activation_efficiency": 0.10,
    "kernel_s": 0.25,
}
"""Standard deviation of the logarithm from card to card; kernel_s: of the hosts that drive them,
this project's choice."""
SPREAD_MEASURED = SPREAD | {"attention_efficiency": 0.25, "conv_efficiency": 0.25}
"""The same where the other card's ceilings were measured (FlashAttention-2: 35 to 57 % of the
datasheet on H100 and H20)."""
COMMON = {"measured": 0.05, "scaled": 0.10, "alone": 0.20}
"""Standard deviation of the logarithm of all ceilings together, by what they rest on; this
project's choice, over the 4 % by which the best GEMMs of five cards differ in their share of the
datasheet (configs/reference/gpu_ceilings.csv)."""
# of a datasheet: the middle of 77.6 to 86.9 % (GEMM) and of 77 to 87 % (copies), same file
ACHIEVED = 0.82
QUANTILES = 9  # of COMMON, that each held-out residual is joined with


def check_same_kind(calibration: Calibration, target: str) -> None:
    """Refuses to go from a CPU to a GPU or back: shares of ceilings are those of the kernels, and
    the two run none in common.

    Raises UserError, saying what to do in its place."""
    if kind_of(calibration.gpu) == kind_of(target):
        return
    ours = calibration.gpu
    if calibration.device_name != ours:
        ours += f" ({calibration.device_name})"
    instead = (
        f"give a result measured on a GPU, or `ldt-bench run h100 --dry-run --gpu {target}` for "
        "times by its datasheet"
        if kind_of(target) == "cuda"
        else "measure the CPU itself: `ldt-bench run calibrate-cpu --device cpu`"
    )
    raise UserError(
        f"a calibration of {ours} is not carried over to {target}: a CPU and a GPU run other "
        f"kernels, so the one says nothing of the other; {instead}"
    )


def transfer(
    calibration: Calibration,
    fit: Fit,
    target: Gpu,
    source: Gpu | None,
    measured: Ceilings | None = None,
    seed: int = 0,
) -> tuple[Calibration, Fit, str]:
    """-> the calibration and the fit as if of `target`, and in words what its ceilings rest on.

    source: datasheet of the calibrated device, None where it has none; measured: ceilings of the
    target itself. Raises UserError where the target's datasheet lacks what is needed, and between a
    CPU and a GPU."""
    check_same_kind(calibration, target.name)
    if measured is not None:
        device, rests, words = measured, "measured", f"ceilings measured on {target.name}"
    else:
        device, rests, words = _scaled(fit, target, source)
    rng = np.random.default_rng(seed)
    draws = np.array(fit.draws)
    for name, spread in (SPREAD if measured is None else SPREAD_MEASURED).items():
        i, meaning = NAMES.index(name), PARAMETERS[name]
        draws[:, i] = np.clip(
            draws[:, i] * np.exp(spread * rng.standard_normal(len(draws))),
            meaning.low,
            meaning.high,
        )
    # Efficiencies end at 1, where a prediction would be sure not to be faster: what is common goes
    # to the residuals.
    common = [COMMON[rests] * NormalDist().inv_cdf((k + 0.5) / QUANTILES) for k in range(QUANTILES)]
    training = fit.training and fit.training.model_copy(
        update={"factor": _wider(fit.training.factor)}
    )
    moved = fit.model_copy(
        update={
            "ceilings": {name: getattr(device, name) for name in Ceiling.__args__},
            "probed": ProbedSizes(
                **{name: getattr(device, name) for name in ProbedSizes.model_fields}
            ),
            "draws": draws.tolist(),
            "stages": [],
            "training": training,
            "residuals": [
                residual + shift for residual in fit.residuals or [0.0] for shift in common
            ],
        }
    )
    return (
        calibration.model_copy(
            update={
                "gpu": target.name,
                "device_name": target.name,
                "power_w": None,
                "stage_power_w": {},
            }
        ),
        moved,
        words,
    )


def _wider(factor: Quantity) -> Quantity:
    """Widen the training factor: most of a backward is attention, whose kernels differ from card to
    card."""
    fold = math.exp(NormalDist().inv_cdf(0.95) * SPREAD_MEASURED["attention_efficiency"])
    return factor.widened(fold)


def _scaled(fit: Fit, target: Gpu, source: Gpu | None) -> tuple[Ceilings, str, str]:
    """-> ceilings, what they rest on (a key of COMMON), and that in words."""
    peak, bandwidth = target.peak_flops_per_s.get(fit.dtype), target.bandwidth_bytes_per_s
    if peak is None or bandwidth is None:
        raise UserError(
            f"--gpu {target.name}: its datasheet has no"
            f" {f'rate in {fit.dtype}' if peak is None else 'bandwidth'}; known:"
            f" {', '.join(target.peak_flops_per_s) or 'none'}; calibrate a recipe of one of these"
        )
    old = fit.device
    own_peak = source.peak_flops_per_s.get(fit.dtype) if source else None
    own_bandwidth = source.bandwidth_bytes_per_s if source else None
    if own_peak and own_bandwidth:
        rests, words = "scaled", f"the ceilings of {source.name}, scaled by the two datasheets"
        faster, wider = peak / own_peak, bandwidth / own_bandwidth
    else:
        rests, words = (
            "alone",
            (
                f"{ACHIEVED:.0%} of the datasheet of {target.name} alone: that of the "
                "calibrated card is not known"
            ),
        )
        faster, wider = (
            ACHIEVED * peak / old.gemm_flops_per_s,
            ACHIEVED * bandwidth / old.copy_bytes_per_s,
        )
    return (
        replace(
            old,
            gemm_flops_per_s=old.gemm_flops_per_s * faster,
            attention_flops_per_s=old.attention_flops_per_s * faster,
            conv_flops_per_s=old.conv_flops_per_s * faster,
            copy_bytes_per_s=old.copy_bytes_per_s * wider,
            activation_bytes_per_s=(
                old.activation_bytes_per_s * wider if old.activation_bytes_per_s else None
            ),
            ladder=tuple((size, rate * wider) for size, rate in old.ladder),
            small_conv_flops_per_s=None,
            fresh_bytes_per_s=None,
        ),
        rests,
        words,
    )
