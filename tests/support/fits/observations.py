"""Stages whose seconds follow the cost model, with noise."""

import numpy as np

from bench.calibrate.cost.seconds import Priced
from bench.calibrate.fit import (
    Observation,
)
from support.calibrations import (
    CEILINGS,
    THETA,
    work,
)


def synthetic(noise: float, n: int = 24, seed: int = 0, conv: bool = True) -> list[Observation]:
    """Stages of many sizes whose seconds follow the model, with log-normal noise."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        made, flops, tokens = work(rng, conv and i % 4 == 0)
        t = Priced([made], CEILINGS).seconds(THETA)[0] * np.exp(noise * rng.standard_normal())
        out.append(Observation(f"p{i}", "denoise_step", made, float(t), flops, noise, tokens))
    return out
