"""Two results of one machine, drawn from stated distributions."""

import numpy as np

from bench.measure.timing.sampling import summarise
from bench.results.records import CeilingsRecord, Probe
from support.records import environment, point_record

STAGES = 16


SESSION = 0.01  # what a stage's median moves by from one session to the next, everything else equal


POINT = point_record()


def timing(seconds: float, rng: np.random.Generator, n: int = 20, noise: float = 0.01):
    """Samples whose noise is autocorrelated, as neighbours in time are."""
    x = noise * rng.standard_normal(n)
    for i in range(1, n):
        x[i] = 0.6 * x[i - 1] + 0.8 * x[i]
    return summarise((seconds * np.exp(x)).tolist(), [seconds], "converged", True)


def result(
    rng: np.random.Generator,
    factors=1.0,
    *,
    session: float = SESSION,
    machine: float = 1.0,
    stages: int = STAGES,
    probes: int = 12,
    n: int = 20,
    started: str = "2026-01-01T00:00:00+00:00",
    **changed,
):
    """A result whose stages take 10 ms, 20 ms, ... times their factor; `machine` slows stages and
    probes alike."""
    where = environment().model_copy(update=changed)
    factors = np.broadcast_to(factors, stages)

    def moved() -> float:
        return machine * float(np.exp(session * rng.standard_normal()))

    ceilings = CeilingsRecord(
        fingerprint="c",
        suite="s",
        started_utc=started,
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=where,
        probes=[
            Probe(
                kind="gemm",
                dtype="fp32",
                backend=None,
                shape={"m": i + 1, "n": 1, "k": 1},
                flops=1,
                bytes_moved=None,
                timing=timing(0.01 * moved(), rng),
            )
            for i in range(probes)
        ],
        telemetry=None,
    )
    return [
        *([ceilings] if probes else []),
        *(
            POINT.model_copy(
                update={
                    "fingerprint": f"p{i}",
                    "environment": where,
                    "started_utc": started,
                    "recipe": f"r{i}",
                    "timings": {
                        "denoise_step": timing(0.01 * (i + 1) * float(f) * moved(), rng, n)
                    },
                }
            )
            for i, f in enumerate(factors)
        ),
    ]


def verdicts(pairs) -> list[str]:
    return [c.verdict for pair in pairs for c in pair.changes]


def run_at(day: int, rng: np.random.Generator, factors=1.0, **kw):
    return result(rng, factors, started=f"2026-01-{day:02}T00:00:00+00:00", **kw)
