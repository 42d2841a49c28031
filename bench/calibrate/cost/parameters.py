"""The parameters of the cost model by operator (bench.calibrate.cost.seconds): units, bounds, and
what is believed before anything is measured."""

from dataclasses import dataclass

import numpy as np

from bench.calibrate.fitting.parameter import Parameter


@dataclass(frozen=True, kw_only=True)
class Term(Parameter):
    """One parameter of the cost model by operator."""

    needs: str
    """The class of work that must have been measured, else `at its prior`."""


def _term(unit: str, low: float, high: float, prior: float, spread: float, needs: str) -> Term:
    return Term(unit=unit, low=low, high=high, prior=prior, spread=spread, needs=needs)


SHARE = "share of ceiling"
PARAMETERS: dict[str, Term] = {
    "linear_efficiency": _term(SHARE, 0.01, 1.0, 0.8, 0.7, "linear"),
    "linear_half_size": _term("rows, columns or depth", 0.1, 4096.0, 24.0, 1.0, "linear"),
    "attention_efficiency": _term(SHARE, 0.01, 1.0, 0.8, 0.7, "attention"),
    "attention_half_length": _term("tokens", 0.1, 8192.0, 24.0, 1.0, "attention"),
    "attention_half_head": _term("head size", 0.1, 512.0, 16.0, 1.2, "attention"),
    "conv_efficiency": _term(SHARE, 0.01, 1.0, 0.8, 0.7, "conv"),
    "conv_half_size": _term("channels", 0.1, 1024.0, 8.0, 1.0, "conv"),
    "small_conv_efficiency": _term(SHARE, 0.01, 10.0, 1.0, 1.0, "small_conv"),
    "activation_efficiency": _term(SHARE, 0.02, 20.0, 1.0, 0.5, "activation"),
    "memory_efficiency": _term(SHARE, 0.02, 20.0, 0.5, 1.0, "memory"),
    "fresh_efficiency": _term(SHARE, 0.1, 10.0, 1.0, 0.4, "fresh"),
    # from a graph replay's 10 ns to a slow interpreter's 1 ms
    "kernel_s": _term("s", 1e-8, 1e-3, 5e-6, 1.2, "kernel"),
    "call_s": _term("s", 1e-8, 1e-1, 2e-5, 1.2, "kernel"),
}
NAMES = tuple(PARAMETERS)
RATES = (
    "linear_efficiency",
    "attention_efficiency",
    "conv_efficiency",
    "memory_efficiency",
    "kernel_s",
)
"""Those without which nothing can be said; the rest have a prior that a few points need not
move."""
TERMS = tuple(PARAMETERS.values())
PRIOR = np.array([term.prior for term in TERMS])
