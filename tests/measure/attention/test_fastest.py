"""A race of attention backends inside the model: the fastest wins, the record has all."""

import pytest
import torch

from bench.measure.attention import backends as sdpa
from bench.measure.attention import fastest
from bench.measure.attention.fastest import fastest_attention
from bench.measure.device.machine import Machine
from models import kernels
from support.measure.attention import own, public, ran

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _pytorchs_own_kernels(monkeypatch):
    """Not every CPU has oneDNN's bfloat16."""
    monkeypatch.setattr(kernels, "ONEDNN", False)


class Race:
    """Seconds by the backend that SDPA is held to."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds, self.ran = seconds, []

    def time(self, call) -> float:
        call()
        self.ran.append(Race.current)
        return self.seconds[Race.current]

    def now(self) -> float:
        return 0.0

    current = ""


@pytest.fixture
def raced(monkeypatch):
    real, Race.current = fastest.sdpa_backend, ""

    def noting(name):
        Race.current = name
        return real(name)

    monkeypatch.setattr(fastest, "sdpa_backend", noting)


CPU_MACHINE = Machine("cpu", None, frozenset(), True)


def forward(head_dim: int = 16):
    seen = []

    def call():
        for _ in range(6):
            seen.append(1)
            kernels.attention(*torch.randn(3, 1, 2, 8, head_dim).unbind(0))

    return call, seen


@pytest.mark.parametrize("winner", ["auto", "flash", "math"])
def test_the_fastest_wins_after_three_rounds_in_turns(raced, winner):
    call, seen = forward()
    clock = Race({name: 0.01 if name == winner else 0.02 for name in ("auto", "flash", "math")})
    found = fastest_attention(call, CPU_MACHINE, clock)
    assert found.backend == winner
    assert found.seconds == clock.seconds
    assert clock.ran == ["auto", "flash", "math"] * 4
    assert len(seen) == 3 + 12 * 2  # found at the third, then two of six a run


def test_long_blocks_are_raced_once(raced):
    call, _ = forward()
    clock = Race({"auto": 1.2, "flash": 0.9, "math": 5.0})
    assert fastest_attention(call, CPU_MACHINE, clock).backend == "flash"
    assert len(clock.ran) == 6


def test_a_backend_without_a_kernel_is_no_candidate(raced, monkeypatch):
    real = kernels.attention

    def none_for_flash(q, k, v):
        if Race.current == "flash":
            raise RuntimeError("No available kernel. Aborting execution.")
        if Race.current == "math":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(q, k, v)

    monkeypatch.setattr(kernels, "attention", none_for_flash)
    call, _ = forward()
    assert fastest_attention(call, CPU_MACHINE, Race({"auto": 1e-3})).seconds == {"auto": 1e-3}
    assert (
        fastest_attention(lambda: None, CPU_MACHINE, Race({})).reason
        == "no attention call was seen to choose a backend by"
    )


def test_the_candidates_of_a_card_are_those_that_can_run_there():
    def candidates(machine: Machine) -> list[str]:
        return [
            n for n in fastest.CANDIDATES["cuda"] if sdpa.unsupported_reason(n, machine) is None
        ]

    assert candidates(Machine("cuda", (8, 0), frozenset(), True)) == ["cudnn", "flash", "efficient"]
    assert candidates(
        Machine("cuda", (9, 0), frozenset({"flash_attn_interface"}), True, frozenset({"FA3"}))
    ) == ["cudnn", "flash", "flash3", "efficient"]


@pytest.mark.parametrize("make", [own, public])
def test_the_record_of_the_fastest_has_all_candidates(make):
    point = make("fastest-attention-fp32")
    seen = ran(point)
    assert seen.chosen_by == "measured"
    assert set(seen.candidates_s) == {"auto", "flash", "math"}
    assert seen.backend in ("flash", "math")
    assert min(seen.candidates_s, key=seen.candidates_s.get) in ("auto", seen.backend)
    assert (
        point.recipe.identity()["attention"] == "fastest"
    )  # the choice is no part of the fingerprint
