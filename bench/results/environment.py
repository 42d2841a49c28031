"""The machine and the software that a measurement depended on."""

import hashlib
import json
from collections.abc import Iterable
from typing import Literal

from bench.results.base import Strict


class Environment(Strict):
    """What the measurement depended on.  Nothing here identifies a person or a host."""

    gpu: str
    """Name in configs/gpus, else a slug of the device's name."""
    device: Literal["cpu", "cuda"]
    device_name: str
    device_uuid_hash: str | None
    """SHA-256 of the UUID, 16 digits."""
    driver: str | None
    cuda: str | None
    cudnn: int | None
    torch: str
    python: str
    os: str
    threads: int
    memory_bytes: int
    code_version: str

    def digest(self) -> str:
        """Of all of it but the size of memory, 16 hex digits: samples that may stand in one record
        share it, and so come from one card."""
        kept = json.dumps(self.model_dump(exclude={"memory_bytes"}), sort_keys=True)
        return hashlib.sha256(kept.encode()).hexdigest()[:16]

    def differences(self, other: "Environment") -> list[str]:
        """What would make two results unlike: 'torch 2.11 / 2.13', ...  Another card of the same
        kind does not: whoever mixes or compares them says so (`cards_in`)."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [
            f"{key} {mine[key]} / {theirs[key]}"
            for key in mine
            if key not in ("memory_bytes", "device_uuid_hash") and mine[key] != theirs[key]
        ]


def cards_in(environments: Iterable[Environment]) -> str | None:
    """Which cards of one kind were measured on, in words; None where it was one, or the systems do
    not say."""
    cards = dict.fromkeys(
        e.device_uuid_hash for e in environments if e.device_uuid_hash is not None
    )
    if len(cards) < 2:
        return None
    return f"{len(cards)} cards of one kind: {', '.join(cards)}"
