"""Clocks, power, temperature and throttling through NVML, by the device's UUID.  What cannot be read is null, with why."""

import torch

from bench.core.records import Telemetry

THROTTLE_REASONS = {        # nvml.h, nvmlClocksEventReasons*
    0x4: "sw_power_cap", 0x8: "hw_slowdown", 0x20: "sw_thermal_slowdown", 0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
}


def read_telemetry(device: torch.device) -> Telemetry:
    """One reading.  Called right after a timed stage, while the clocks are still those of the load."""
    if device.type != "cuda":
        return _nothing("no NVML on a CPU")
    import pynvml

    missing: list[str] = []

    def reading(what: str, call, *args):  # a driver may refuse one reading and give the next
        try:
            return call(*args)
        except pynvml.NVMLError as error:
            missing.append(f"{what}: {error}")
            return None

    try:
        pynvml.nvmlInit()
        # By UUID: NVML's index ignores CUDA_VISIBLE_DEVICES.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except (pynvml.NVMLError, AttributeError) as error:
        return _nothing(f"NVML: {error}")
    sm = reading("sm clock", pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)
    memory = reading("memory clock", pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM)
    power = reading("power", pynvml.nvmlDeviceGetPowerUsage, handle)
    temperature = reading("temperature", pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    throttle = reading("throttle reasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return Telemetry(
        sm_clock_hz=sm * 1e6 if sm is not None else None,              # MHz
        memory_clock_hz=memory * 1e6 if memory is not None else None,
        power_w=power / 1e3 if power is not None else None,            # milliwatts
        temperature_c=temperature,
        throttle_reasons=None if throttle is None else [n for bit, n in THROTTLE_REASONS.items() if throttle & bit],
        reason="; ".join(missing) or None,
    )


def _nothing(reason: str) -> Telemetry:
    return Telemetry(sm_clock_hz=None, memory_clock_hz=None, power_w=None, temperature_c=None, throttle_reasons=None,
                     reason=reason)
