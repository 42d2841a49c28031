"""What is made of the readings: energy of a prediction, tables that say what is measured, modelled
and derived."""

import json

import pynvml
import pytest

from bench.calibrate.calibration import FittedStage
from bench.calibrate.make import stage_power
from bench.core.load import load_point
from bench.count.document import count_document
from bench.count.fits import fits_memory
from bench.count.point import count_model
from bench.measure.device.telemetry import nothing
from bench.measure.timing.sampling import summarise
from bench.report.documents import ceilings_document
from bench.report.tables.count import count_table
from bench.report.tables.device import clocks_table, gaps, memory_table, traffic_table
from bench.report.tables.doctor import bandwidth_table, ceilings_table
from bench.report.tables.points import points_table
from bench.results.readings import Memory, StageMemory
from bench.results.records import CeilingsRecord, PointRecord, Probe
from support.calibrations import calibration, estimate
from support.measure.fake_nvml import watched
from support.records import count, environment, point_record
from support.terminal import shown

NO = pynvml.NVML_ERROR_NOT_SUPPORTED


def with_telemetry(nvml, stage="denoise_step", **kwargs) -> PointRecord:
    record = point_record()
    return record.model_copy(update={"telemetry": {stage: watched(nvml(), **kwargs)}})


def test_power_of_a_stage_is_energy_over_time_else_the_reading(nvml):
    counted, other = with_telemetry(nvml), with_telemetry(nvml, joules=30.0)
    read = point_record().model_copy(
        update={
            "telemetry": {
                "denoise_step": watched(nvml(nvmlDeviceGetTotalEnergyConsumption=NO)),
                "vae_decode": nothing("x"),
            }
        }
    )
    assert stage_power([counted]) == {"denoise_step": pytest.approx(300.0)}  # 90 J in 0.3 s
    assert stage_power([counted, other]) == {
        "denoise_step": pytest.approx(200.0)
    }  # and 30 J in 0.3 s
    assert stage_power([read]) == {"denoise_step": 650.0}  # the median reading
    assert stage_power([point_record()]) == {}


def test_kwh_from_the_energy_of_a_step_by_hand():
    """250 steps of 1,000 J, a decode of 1 s at 400 W, a prompt of 1 s at the denoise steps' 600 W:
    251,000 J for a clip of 1/24 s, so 251,000 x 24 x 60 / 3.6e6 = 100.4 kWh a minute."""
    base = calibration(power=600.0)
    point = load_point("sora-3b", "image-512", "eager-bf16")
    stage = FittedStage(
        point="sora-3b image-512 eager-bf16",
        stage="denoise_step",
        tokens=1024,
        flops=1,
        measured_s=2.0,
        fitted_s=2.0,
        held_out_s=None,
        subject=point.subject,
        energy_j=1000.0,
    )
    fit = base.fit_for(None).model_copy(update={"stages": [stage]})
    c = base.model_copy(
        update={
            "fits": {"eager-bf16": fit},
            "stage_power_w": {"denoise_step": 600.0, "vae_decode": 400.0},
        }
    )
    kwh = estimate(c=c).kwh_per_minute
    assert kwh.value == pytest.approx(100.4)
    assert kwh.low < 100.4 < kwh.high < 100.6  # only decode and prompt are uncertain
    # Another point has no energy of its own: 500 s at 600 W + 1 s at 400 W + 1 s at 600 W = 301,000
    # J.
    namesake = stage.model_copy(update={"subject": "another"})
    c.fits["eager-bf16"] = fit.model_copy(update={"stages": [namesake]})
    assert estimate(c=c).kwh_per_minute.value == pytest.approx(301_000 * 24 * 60 / 3.6e6)


def test_no_power_no_energy_and_a_warning():
    e = estimate(c=calibration().model_copy(update={"stage_power_w": {"vae_decode": 100.0}}))
    assert e.kwh_per_minute is None
    assert any("no energy: neither energy nor power of denoise_step" in w for w in e.warnings)


def test_the_report_says_what_is_measured_modelled_and_derived(nvml):
    record = with_telemetry(nvml)
    record.counts["denoise_step"] = count(
        linear_flops=10**9, bytes_modelled_min=10**9, bytes_modelled_max=3 * 10**9
    )
    assert traffic_table([record]).texts == [
        [
            "tiny tiny-clip eager-fp32",
            "denoise_step",
            "1 GB/s to 3 GB/s",
            "50 %",
            "1 TB/s",
            "80 %",
            "90 J",
        ]
    ]
    assert clocks_table([record]).texts[0][3:] == [
        "1980 MHz",
        "2619 MHz",
        "650 W",
        "61 °C",
        "power-limited: sw_power_cap 100% of the samples",
    ]
    assert gaps([record]) == []
    assert gaps([point_record(), with_telemetry(nvml, bandwidth=None)]) == [
        "dram_bytes_per_s_derived: no datasheet gives this device's bandwidth"
    ]
    assert "power-limited" in shown(points_table([record]), 200)
    assert PointRecord.model_validate(json.loads(record.model_dump_json())) == record


def test_a_throttled_stage_is_kept_and_marked(nvml):
    fake = nvml()
    fake.reasons = 0x8 | 0x40
    record = point_record().model_copy(update={"telemetry": {"denoise_step": watched(fake)}})
    text = shown(points_table([record]), 240)
    assert "throttled: hw_slowdown 100%, hw_thermal_slowdown 100% of the samples" in text
    assert record.outcome == "ok"


def test_memory_beside_its_model():
    """Weights of 1 GiB, 3 GiB modelled alive, 5 GiB allocated of which 0.5 GiB are inputs."""
    gib = 2**30
    memory = Memory(
        weights=gib,
        inputs=gib // 2,
        peak_allocated=5 * gib,
        peak_reserved=6 * gib,
        reason=None,
        by_stage={
            "denoise_step": StageMemory(
                peak_allocated=5 * gib,
                peak_reserved=6 * gib,
                device_used=7 * gib,
                activations=7 * gib // 2,
            )
        },
    )
    record = point_record().model_copy(update={"memory": memory})
    record.counts["denoise_step"] = count(linear_flops=1, bytes_peak_activations=3 * gib)
    assert memory_table([record]).texts == [
        [
            "tiny tiny-clip eager-fp32",
            "denoise_step",
            "1 GiB",
            "4 GiB",
            "5 GiB",
            "6 GiB",
            "7 GiB",
            "3.5 GiB",
        ]
    ]
    cpu = Memory(weights=gib, inputs=1, peak_allocated=2 * gib, peak_reserved=None, reason="a CPU")
    assert [row[1] for row in memory_table([record.model_copy(update={"memory": cpu})]).texts] == [
        "denoise_step",
        "whole process",
    ]


def test_bandwidth_by_size_and_the_ceiling_beyond_the_caches():
    def probe(kind: str, size: int, seconds: float, dtype: str = "fp32") -> Probe:
        return Probe(
            kind=kind,
            dtype=dtype,
            backend=None,
            shape={"bytes": size},
            flops=None,
            bytes_moved=2 * size,
            timing=summarise([seconds] * 7, [], "converged", True),
        )

    record = CeilingsRecord(
        fingerprint="c",
        suite="s",
        started_utc="",
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=environment(),
        telemetry=None,
        probes=[
            probe("copy", 2**20, 1e-6),
            probe("copy", 2**30, 2**31 / 1e12),
            probe("read", 2**20, 2**21 / 4e12),
            probe("copy", 2**30, 2**31 / 1.5e12, "bf16"),
            probe("write", 2**18, 2**19 / 2e12),
        ],
    )
    assert record.peak("copy") == pytest.approx(1.5e12)  # the largest array's best, not the cache's
    assert record.peak("copy", "fp32") == pytest.approx(1e12)
    assert bandwidth_table(record).texts == [
        ["1 MiB", "fp32", "2.1 TB/s", "–", "4 TB/s", "–"],
        ["1 GiB", "fp32", "1 TB/s", "–", "–", "–"],
        ["1 GiB", "bf16", "1.5 TB/s", "–", "–", "–"],
        ["256 KiB", "fp32", "–", "–", "–", "2 TB/s"],
    ]
    d = ceilings_document(record)
    assert d["read"]["bytes_per_s"] == pytest.approx(4e12)
    assert d["write"]["sizes"][0]["bytes"] == 2**18
    assert d["triad"] == {"bytes_per_s": None, "sizes": []}
    assert "bytes=1,048,576" not in shown(ceilings_table(record, None)).split("read")[0]
    assert "256 KiB" in shown(bandwidth_table(record))


def test_which_cards_a_point_fits():
    """tiny fits every card whose memory is known; a denoiser of 50e9 bf16 parameters (100 GB) only
    the largest ones."""
    point = load_point("tiny", "tiny-image", "eager-bf16")
    counted = count_model(point.model, point.workload, "bf16")
    d = count_document(point, counted)
    assert d["fits"]["cpu"] is None
    assert all(fits for gpu, fits in d["fits"].items() if gpu != "cpu")
    assert d["fits_vae_decode"]["rtx-4090"] is True
    assert "fits (weights and a step, modelled)" in shown(count_table(d), 200)
    big = {"denoiser": 50 * 10**9}
    counts = {"denoise_step": count(bytes_peak_activations=5 * 10**9)}
    assert fits_memory(point, counts, big, 105 * 10**9) is True
    assert fits_memory(point, counts, big, 105 * 10**9 - 1) is False
    assert fits_memory(point, counts, big, None) is None
