"""A fake card for the harness: its events, its energy, and comparisons without numbers."""

import importlib.util

import pytest

from bench.measure.attention import correctness
from bench.measure.points import against
from bench.measure.probes import operands as probes
from bench.results.records import Correctness, Divergence
from support.measure.fake_cuda import CUDA, Event


@pytest.fixture
def a_quarter_of_a_second(monkeypatch, nvml):
    """Events are 250 ms apart, NVML has a card that uses energy, and Triton is installed."""
    record = Event.record

    def later(self, stream=None):
        Event.now_ms += 249.0
        record(self, stream)

    monkeypatch.setattr(Event, "record", later)
    fake = nvml(
        nvmlSystemGetDriverVersion=lambda: "580.65", nvmlSystemGetCudaDriverVersion=lambda: 13000
    )
    energy = fake._nvmlDeviceGetTotalEnergyConsumption

    def burn(handle):
        fake.joules += 100.0
        return energy(handle)

    fake._nvmlDeviceGetTotalEnergyConsumption = burn
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: name if name == "triton" else find(name, *rest),
    )


@pytest.fixture
def without_values(monkeypatch):
    """A fake card has no numbers to compare: what is handed to the comparison is looked at."""

    def compared(call: correctness.Attended, allowed: float) -> Correctness:
        assert call.q.device == call.k.device == call.v.device == call.out.device == CUDA
        return Correctness(
            rows=1, tokens=call.k.shape[2], relative_error=0.0, finite=True, tolerance=allowed
        )

    for module in (correctness, probes):
        monkeypatch.setattr(module, "compared", compared)
    monkeypatch.setattr(correctness.Check, "output", lambda check, out: None)
    same = Divergence(relative_l2=0.0, cosine=1.0, psnr_db=None, identical=True, samples=1)
    monkeypatch.setattr(against, "divergence_of", lambda ours, theirs: same)
