"""Is this node worth keeping?  Readings of `bench.measure.probes.doctor` held against the card's
datasheet and published rates.

Pure: readings in, verdict out.  Each check is ok, warn, fail, or unknown where a reading or an
expectation is missing. A fail makes the node one to swap, a warn makes it suspicious.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.core.specs.gpu import Gpu
from bench.studies.acceptance.card import card, health, power
from bench.studies.acceptance.checks import Check, Look
from bench.studies.acceptance.host import company, cpu_wanted, governor, host, torch, versions
from bench.studies.acceptance.rates import links, rates


@dataclass(frozen=True)
class Acceptance:
    """All checks, and what they come to."""

    verdict: Literal["keep", "suspicious", "swap"]
    reasons: list[str]
    checks: list[Check]

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "checks": [asdict(c) for c in self.checks],
        }


def accept(
    readings: Mapping[str, Any],
    device: str,
    device_name: str,
    gpu_name: str,
    gpu: Gpu | None,
    *,
    wanted: str | None = None,
) -> Acceptance:
    """Judge one node.  readings: {values, missing}; gpu_name: its name in configs/gpus, gpu: that
    entry, None for a card that has none; wanted: the entry that was ordered, where it was said."""
    look = Look(readings)
    if device == "cuda":
        checks = [
            *card(look, device_name, gpu_name, gpu, wanted),
            *health(look),
            *power(look, gpu),
            *rates(look, gpu),
            *links(look),
            *company(look),
            versions(look),
            torch(look),
        ]
    else:
        checks = [*cpu_wanted(device_name, wanted), governor(look)]
    return conclude([*checks, *host(look, device)])


def conclude(checks: list[Check]) -> Acceptance:
    """The worst check decides."""
    verdicts = {c.verdict for c in checks}
    verdict = "swap" if "fail" in verdicts else "suspicious" if "warn" in verdicts else "keep"
    order = {"fail": 0, "warn": 1}
    reasons = [
        f"{c.name}: {c.why}"
        for c in sorted(checks, key=lambda c: order.get(c.verdict, 2))
        if c.verdict in order
    ]
    return Acceptance(verdict, reasons, checks)


def broken(outcome: str, reason: str) -> Acceptance:
    """The examination itself ended badly: a card that cannot multiply for five seconds is no card
    to rent."""
    return conclude([Check("examination", outcome, "ok", "fail", reason)])
