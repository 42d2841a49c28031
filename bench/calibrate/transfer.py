"""A calibration carried to a card that was not measured: class efficiencies stay, ceilings are the other card's.

The other card's ceilings are, in this order: those measured on it (another result's), the measured ones scaled by the two
datasheets, or its datasheet alone where the calibrated device has none (a CPU).  Whatever it is, the outcome is
`extrapolated`, and its interval is wider by how much achieved shares differ from card to card in published figures
(configs/reference/gpu_ceilings.csv): GEMM 77.6 to 86.9 % of the datasheet over five cards, 4 % as a standard deviation;
FlashAttention-2 reaches 35 to 57 % on H100 and H20, 25 %.  Convolution and memory have no such rows; the wider of the two is
taken for the one, and 10 % for the other (copies reach 77 to 87 % of the datasheet on one kind of card).
"""

from dataclasses import replace

import numpy as np

from bench.calibrate.calibration import Calibration, Ceiling, Fit, ProbedSizes
from bench.calibrate.cost_model import NAMES, PARAMETERS, Ceilings
from bench.core.errors import UserError
from bench.core.spec import Gpu

SPREAD = {"linear_efficiency": 0.05, "attention_efficiency": 0.25, "conv_efficiency": 0.25, "memory_efficiency": 0.10,
          "activation_efficiency": 0.10, "kernel_s": 0.25}
"""Standard deviation of the logarithm from card to card; kernel_s: of the hosts that drive them, this project's choice."""


def transfer(calibration: Calibration, fit: Fit, target: Gpu, source: Gpu | None, measured: Ceilings | None = None,
             seed: int = 0) -> tuple[Calibration, Fit, str]:
    """-> the calibration and the fit as if of `target`, and in words what its ceilings rest on.

    source: datasheet of the calibrated device, None where it has none; measured: ceilings of the target itself.
    Raises UserError where the target's datasheet lacks what is needed."""
    if measured is not None:
        device, words = measured, f"ceilings measured on {target.name}"
    else:
        device, words = _scaled(fit, target, source)
    rng = np.random.default_rng(seed)
    draws = np.array(fit.draws)
    for name, spread in SPREAD.items():
        i, meaning = NAMES.index(name), PARAMETERS[name]
        draws[:, i] = np.clip(draws[:, i] * np.exp(spread * rng.standard_normal(len(draws))), meaning.low, meaning.high)
    moved = fit.model_copy(update={
        "ceilings": {name: getattr(device, name) for name in Ceiling.__args__},
        "probed": ProbedSizes(**{name: getattr(device, name) for name in ProbedSizes.model_fields}),
        "draws": draws.tolist(), "stages": [],
    })
    return (calibration.model_copy(update={"gpu": target.name, "device_name": target.name, "power_w": None,
                                           "stage_power_w": {}}), moved, words)


def _scaled(fit: Fit, target: Gpu, source: Gpu | None) -> tuple[Ceilings, str]:
    peak, bandwidth = target.peak_flops_per_s.get(fit.dtype), target.bandwidth_bytes_per_s
    if peak is None or bandwidth is None:
        raise UserError(f"--gpu {target.name}: its datasheet has no {f'rate in {fit.dtype}' if peak is None else 'bandwidth'}"
                        f"; known: {', '.join(target.peak_flops_per_s) or 'none'}; calibrate a recipe of one of these")
    old = fit.device
    own_peak = source.peak_flops_per_s.get(fit.dtype) if source else None
    own_bandwidth = source.bandwidth_bytes_per_s if source else None
    if own_peak and own_bandwidth:
        words = f"the ceilings of {source.name}, scaled by the two datasheets"
        faster, wider = peak / own_peak, bandwidth / own_bandwidth
    else:
        words = f"the datasheet of {target.name} alone: the calibrated device has none"
        faster, wider = peak / old.gemm_flops_per_s, bandwidth / old.copy_bytes_per_s
    return replace(
        old, gemm_flops_per_s=old.gemm_flops_per_s * faster, attention_flops_per_s=old.attention_flops_per_s * faster,
        # What a CPU's convolutions gain over its GEMM is a matter of its libraries, and not carried over.
        conv_flops_per_s=(old.conv_flops_per_s if own_peak else min(old.conv_flops_per_s, old.gemm_flops_per_s)) * faster,
        copy_bytes_per_s=old.copy_bytes_per_s * wider,
        activation_bytes_per_s=old.activation_bytes_per_s * wider if old.activation_bytes_per_s and own_bandwidth else None,
        ladder=tuple((size, rate * wider) for size, rate in old.ladder) if own_bandwidth else (),
        small_conv_flops_per_s=None, fresh_bytes_per_s=None,
    ), words
