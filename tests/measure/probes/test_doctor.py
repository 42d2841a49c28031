"""Synthetic readings give the verdict they should; a fake NVML gives the readings; no GPU is
needed."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch

from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.measure.probes import rates
from bench.measure.probes.doctor import examine, other_processes, read_card
from bench.measure.probes.rates import read_busy, run_load
from bench.measure.probes.readings import Readings
from bench.measure.timing.clock import CpuClock
from bench.measure.worker.process import JobFailed, Worker
from bench.measure.worker.protocol import NodeReply
from bench.studies.acceptance.card import form_of
from bench.studies.acceptance.thresholds import LINK_BYTES_PER_LANE
from bench.studies.acceptance.verdict import accept, broken

HEALTHY = {
    "cores": 16,
    "load_average": 0.3,
    "host_memory_free_bytes": 100e9,
    "disk_free_bytes": 50e9,
    "clock_resolution_s": 1e-7,
    "driver": "570.1",
    "driver_cuda": "12.8",
    "torch_cuda": "12.8",
    "torch": "2.11.0",
    "ecc_enabled": True,
    "ecc_uncorrected": 0,
    "ecc_corrected": 3,
    "ecc_uncorrected_lifetime": 0,
    "mig_enabled": False,
    "remapped_rows": {"corrected": 0, "uncorrected": 0, "pending": 0, "failed": 0},
    "sm_clock_max_hz": 1.98e9,
    "power_limit_w": 700.0,
    "power_limit_default_w": 700.0,
    "link_generation_max": 5,
    "link_width_max": 16,
    "utilisation_idle": 0.0,
    "other_processes": 0,
    "card_memory_bytes": 80e9,
    "card_memory_foreign_bytes": 0,
    "gemm": {"flops_per_s": 780e12, "dtype": "bf16", "shape": "2048x2048x13312"},
    "gemm_first_flops_per_s": 778e12,
    "gemm_again_flops_per_s": 780e12,
    "copy_bytes_per_s": 2.8e12,
    "host_to_device_bytes_per_s": 55e9,
    "device_to_host_bytes_per_s": 54e9,
    "gemm_sustained_flops_per_s": 690e12,
    "load_sm_clock_hz": 1.5e9,
    "load_power_w": 690.0,
    "load_temperature_c": 62,
    "load_throttle_reasons": ["sw_power_cap"],
    "load_link_generation": 5,
    "load_link_width": 16,
}
H100 = ("cuda", "NVIDIA H100 80GB HBM3", "h100-sxm")


def judge(change=None, missing=(), card=H100, **options):
    values = {**copy.deepcopy(HEALTHY), **(change or {})}
    for name in missing:
        del values[name]
    readings = {"values": values, "missing": dict.fromkeys(missing, "Not Supported")}
    gpu = load(Gpu, card[2]) if card[2] in names("gpus") else None
    return accept(readings, *card, gpu, **options)


def verdicts(accepted):
    return {c.name: c.verdict for c in accepted.checks if c.verdict != "ok"}


def test_a_healthy_card_is_kept():
    accepted = judge(wanted="h100-sxm")
    assert (accepted.verdict, accepted.reasons, verdicts(accepted)) == ("keep", [], {})


@pytest.mark.parametrize(
    ("change", "check", "verdict"),
    [
        ({"gemm": {"flops_per_s": 0.91 * 792.1e12}}, None, "keep"),  # 0.9 of the range's low end
        ({"gemm": {"flops_per_s": 0.89 * 792.1e12}}, "GEMM", "suspicious"),
        ({"gemm": {"flops_per_s": 0.74 * 792.1e12}}, "GEMM", "swap"),
        ({"copy_bytes_per_s": 0.8 * 2.5695e12}, "copy", "suspicious"),
        ({"copy_bytes_per_s": 0.7 * 2.5695e12}, "copy", "swap"),
        ({"torch": "2.9.1+cu128"}, "torch", "suspicious"),
        ({"torch": "2.10.0"}, None, "keep"),
        ({"ecc_enabled": False}, "ECC", "suspicious"),
        ({"ecc_uncorrected": 1}, "ECC, uncorrected", "swap"),
        ({"ecc_uncorrected_lifetime": 2}, "ECC, uncorrected, lifetime", "suspicious"),
        (
            {"remapped_rows": {"corrected": 0, "uncorrected": 1, "pending": 0, "failed": 0}},
            "remapped rows",
            "suspicious",
        ),
        (
            {"remapped_rows": {"corrected": 0, "uncorrected": 1, "pending": 1, "failed": 0}},
            "remapped rows",
            "swap",
        ),
        ({"mig_enabled": True}, "MIG", "swap"),
        ({"power_limit_w": 600.0}, "power limit", "suspicious"),  # 600 / 700 = 0.86
        ({"power_limit_w": 500.0}, "power limit", "swap"),  # 0.71
        ({"power_limit_default_w": 350.0, "power_limit_w": 350.0}, "form", "suspicious"),
        ({"load_sm_clock_hz": 1.0e9}, "clock under load", "suspicious"),  # 1.0 / 1.98 = 0.51
        ({"load_sm_clock_hz": 0.345e9}, "clock under load", "swap"),
        ({"load_throttle_reasons": ["hw_thermal_slowdown"]}, "throttling", "suspicious"),
        (
            {"host_to_device_bytes_per_s": 26e9},
            "host to device",
            "suspicious",
        ),  # of 16 x 3.938e9 = 63e9: 0.41
        ({"device_to_host_bytes_per_s": 12e9}, "device to host", "swap"),
        ({"load_link_width": 8}, "PCIe link", "suspicious"),
        ({"other_processes": 1}, "other processes", "suspicious"),
        ({"card_memory_foreign_bytes": 10e9}, "free card memory", "suspicious"),
        ({"utilisation_idle": 0.9}, "idle before", "suspicious"),
        ({"gemm_again_flops_per_s": 600e12}, "repeatability", "suspicious"),
        ({"driver_cuda": "12.4"}, "versions", "suspicious"),
        ({"load_average": 12.0}, "load", "suspicious"),
        ({"disk_free_bytes": 1e9}, "free disk", "suspicious"),
        ({"host_memory_free_bytes": 1e9}, "free host memory", "suspicious"),
        ({"clock_resolution_s": 0.016}, "clock resolution", "suspicious"),
    ],
)
def test_one_fault_gives_its_verdict_and_its_reason(change, check, verdict):
    accepted = judge(change)
    assert accepted.verdict == verdict
    assert list(verdicts(accepted)) == ([check] if check else [])
    assert [reason.split(": ")[0] for reason in accepted.reasons] == ([check] if check else [])


def test_every_missing_reading_is_unknown_with_why_and_never_a_crash():
    for name in HEALTHY:
        accepted = judge(missing=[name])
        assert accepted.verdict == (
            "suspicious" if name in ("gemm", "copy_bytes_per_s") else "keep"
        ), name
    nothing = judge(missing=list(HEALTHY))
    assert {c.verdict for c in nothing.checks} == {
        "ok",
        "unknown",
        "warn",
    }  # warn: no rate at all, ok: its name
    assert all(c.why for c in nothing.checks if c.verdict != "ok")


def test_the_wrong_card_is_swapped_and_an_unlisted_one_is_unknown():
    assert judge(wanted="h100-pcie").reasons == ["card: ordered h100-pcie, got h100-sxm"]
    unlisted = judge(card=("cuda", "NVIDIA X1", "nvidia-x1"))
    assert unlisted.verdict == "keep"
    assert {"card", "GEMM", "copy"} <= {c.name for c in unlisted.checks if c.verdict == "unknown"}
    assert judge(card=("cuda", "NVIDIA X1", "nvidia-x1"), wanted="h100-sxm").verdict == "swap"
    cpu = accept(
        {"values": {}, "missing": {}},
        "cpu",
        "a processor",
        "cpu",
        load(Gpu, "cpu"),
        wanted="h100-sxm",
    )
    assert cpu.verdict == "swap"


def test_a_card_without_published_rates_can_only_be_suspicious():
    pcie = {"power_limit_w": 350.0, "power_limit_default_w": 350.0}
    card = ("cuda", "NVIDIA H100 PCIe", "h100-pcie")
    slow = judge({**pcie, "gemm": {"flops_per_s": 100e12}}, card=card)
    assert slow.verdict == "suspicious"
    assert "extrapolated: 77.6% of the datasheet" in next(
        c.expected for c in slow.checks if c.name == "GEMM"
    )
    assert (
        judge(
            {**pcie, "gemm": {"flops_per_s": 0.75 * 756e12}, "copy_bytes_per_s": 1.6e12}, card=card
        ).verdict
        == "keep"
    )


def test_an_a100_of_either_form_is_no_other_variant():
    a100 = {
        "gemm": {"flops_per_s": 250e12},
        "copy_bytes_per_s": 1.7e12,
        "power_limit_w": 300.0,
        "power_limit_default_w": 300.0,
    }
    assert judge(a100, card=("cuda", "NVIDIA A100 80GB PCIe", "a100-80gb")).verdict == "keep"
    assert form_of("NVIDIA A100 80GB PCIe", load(Gpu, "a100-80gb")) == "PCIe"
    assert form_of("NVIDIA H100 80GB HBM3", load(Gpu, "h100-sxm")) == "SXM"
    assert form_of("NVIDIA H100 NVL", load(Gpu, "h100-nvl")) == "NVL"


def test_a_card_that_dies_under_the_examination_is_swapped():
    accepted = broken("error", "CUDA error: uncorrectable ECC error encountered")
    assert (accepted.verdict, accepted.reasons[0][:11]) == ("swap", "examination")


ANSWERS = {
    "nvmlSystemGetDriverVersion": "570.86.15",
    "nvmlSystemGetCudaDriverVersion": 12080,
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetRemappedRows": (0, 0, 0, 0),
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0, memory=0),
    "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=7)],
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * 10**9, used=2 * 2**30, free=0),
    "nvmlDeviceGetClockInfo": 1500,
    "nvmlDeviceGetPowerUsage": 690_000,
    "nvmlDeviceGetTemperature": 62,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4 | 0x40,
    "nvmlDeviceGetCurrPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
}


class FakeNvml:
    """As pynvml 13 names and returns things; `refuses` names calls that raise as an old driver's
    do."""

    NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 0, 1
    NVML_VOLATILE_ECC, NVML_AGGREGATE_ECC = 0, 1
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(self, *refuses):
        self.refuses = refuses

    def __getattr__(self, name):
        def call(*args):
            if name in self.refuses:
                raise RuntimeError("Not Supported")
            return args[1] if name == "nvmlDeviceGetTotalEccErrors" else ANSWERS[name]

        return call


def test_names_of_the_fake_are_names_of_nvml():
    import pynvml

    for name in [*ANSWERS, "nvmlDeviceGetTotalEccErrors"]:
        assert callable(getattr(pynvml, name))
    for name in (n for n in vars(FakeNvml) if n.startswith("NVML_")):
        assert getattr(pynvml, name) == getattr(FakeNvml, name)


def test_readings_of_a_card_are_si_and_a_refusal_costs_one():
    readings = Readings()
    read_card(readings, FakeNvml("nvmlDeviceGetEccMode"), None, pid=7)
    v = readings.values
    assert readings.missing["ecc_enabled"] == "Not Supported"
    assert (v["driver_cuda"], v["ecc_uncorrected"], v["ecc_corrected"]) == (
        "12.8",
        1,
        0,
    )  # the fake gives its error type
    assert (v["sm_clock_max_hz"], v["power_limit_w"]) == (1.98e9, 700.0)
    assert (v["other_processes"], v["card_memory_foreign_bytes"]) == (0, 2**30)
    busy = read_busy(FakeNvml("nvmlDeviceGetPowerUsage"), None)
    assert busy["throttle_reasons"] == ["sw_power_cap", "hw_thermal_slowdown"]
    assert busy["why"] == {"power_w": "Not Supported"}


def test_other_processes_in_and_out_of_a_container():
    listed = [SimpleNamespace(pid=7), SimpleNamespace(pid=9)]
    assert other_processes(listed, 7) == 1
    assert other_processes(listed, 1) == 1  # this one goes by another id in there
    with pytest.raises(ValueError, match="not even this one"):
        other_processes([], 7)


def test_the_load_gives_the_warm_half_and_any_throttling_in_it():
    clock = iter(range(100))  # starts at 0; batches at 1, 2, 3 and 4; over at 5; read at 6
    readings = iter([(1980, ["cold"]), (1900, []), (1500, []), (1400, ["hot"])])

    def read():
        mhz, reasons = next(readings)
        return {"sm_clock_hz": mhz * 1e6, "throttle_reasons": reasons, "why": {"power_w": "no"}}

    out = run_load(lambda: None, lambda: None, lambda: float(next(clock)), read, flops=10, batch=3)
    assert out["sm_clock_hz"] == 1450e6
    assert out["throttle_reasons"] == ["hot"]
    assert (out["power_w"], out["why"]) == (None, {"power_w": "no"})
    assert out["flops_per_s"] == 4 * 3 * 10 / 6


def test_link_rates_are_those_of_their_generations():
    for generation, transfers in ((3, 8e9), (4, 16e9), (5, 32e9)):  # GT/s, 128b/130b
        assert LINK_BYTES_PER_LANE[generation] == pytest.approx(transfers * 128 / 130 / 8, rel=1e-3)


def test_this_machine_is_examined_and_a_probe_that_fails_is_one_reading(monkeypatch, tmp_path):
    monkeypatch.setattr(rates, "GEMM_S", 0.01)
    monkeypatch.setattr(rates, "COPY_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(rates, "copy_rate", lambda *_: 1 / 0)
    readings = examine(torch.device("cpu"), CpuClock(), str(tmp_path / "not" / "there"))
    assert readings["missing"]["copy_bytes_per_s"] == "division by zero"
    assert readings["values"]["gemm"]["flops_per_s"] > 0
    assert readings["values"]["disk_free_bytes"] > 0
    assert accept(readings, "cpu", "here", "cpu", load(Gpu, "cpu")).checks


def test_the_command_exits_by_the_verdict(here, monkeypatch):
    environment = SimpleNamespace(
        gpu="h100-sxm",
        device="cuda",
        device_name="NVIDIA H100 80GB HBM3",
        device_uuid_hash=None,
    )
    monkeypatch.setattr(Worker, "environment", environment)
    values = dict(HEALTHY)
    monkeypatch.setattr(Worker, "run", lambda self, job, *_: NodeReply(values=values, missing={}))
    code, out, _ = here("doctor", "--json", "--expect", "h100-sxm")
    document = json.loads(out)
    assert (code, document["verdict"], document["reasons"], document["gpu"]) == (
        0,
        "keep",
        [],
        "h100-sxm",
    )
    assert {"name", "measured", "expected", "verdict", "why"} == set(document["checks"][0])
    values["ecc_uncorrected"] = 4
    code, out, _ = here("doctor")
    assert (code, "verdict: swap" in out) == (1, True)

    def dies(self, *_):
        raise JobFailed("error", "the measuring process died (signal 11)")

    monkeypatch.setattr(Worker, "run", dies)
    code, out, _ = here("doctor")
    assert (code, "signal 11" in out) == (1, True)
    assert here("doctor", "--expect", "h100-sx")[0] == 2
