"""One card through NVML (nvidia-ml-py), found by UUID.  Needs no root and changes nothing.

Whatever cannot be read raises Missing with its reason, and nothing else: telemetry must never cost
a measurement."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

THROTTLE_REASONS = {  # nvml.h, nvmlClocksEventReasons*
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
GPM_METRICS = {  # nvml.h, nvmlGpmMetricId_t: percent, 0 to 100
    "dram_util_percent": "NVML_GPM_METRIC_DRAM_BW_UTIL",
    "tensor_util_percent": "NVML_GPM_METRIC_ANY_TENSOR_UTIL",
    "sm_util_percent": "NVML_GPM_METRIC_SM_UTIL",
    "sm_occupancy_percent": "NVML_GPM_METRIC_SM_OCCUPANCY",
}


class Missing(Exception):
    """A reading that this card, driver or library does not give; the text says why."""


class Card:
    """A device that CUDA calls by `uuid`; NVML's index ignores CUDA_VISIBLE_DEVICES, and so is
    never used."""

    def __init__(self, uuid: str):
        """Raises Missing where NVML or the device in it cannot be had."""
        try:
            import pynvml
        except ImportError as error:
            raise Missing(f"nvidia-ml-py: {error}") from None
        self.nvml = pynvml
        self._ask(pynvml.nvmlInit)
        self.instance: int | None = None  # of the MIG slice
        self.shared: str | None = (
            None  # why what is read of the whole card is not this device's own
        )
        try:
            self.card = self._ask(pynvml.nvmlDeviceGetHandleByUUID, f"GPU-{uuid}")
            if self._mig_mode():
                self.shared = (
                    "MIG: the card's other slices are in this reading, and which slice this is is"
                    " not known"
                )
        except Missing as no_card:
            try:  # CUDA gives a MIG slice a UUID of its own
                slice_ = self._ask(pynvml.nvmlDeviceGetHandleByUUID, f"MIG-{uuid}")
            except Missing:
                raise no_card from None
            self.card = self._ask(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, slice_)
            self.instance = self._ask(pynvml.nvmlDeviceGetGpuInstanceId, slice_)
            self.shared = "MIG: the card's other slices are in this reading"

    def sm_clock_hz(self) -> float:
        return (
            self._ask(self.nvml.nvmlDeviceGetClockInfo, self.card, self.nvml.NVML_CLOCK_SM) * 1e6
        )  # MHz

    def memory_clock_hz(self) -> float:
        return (
            self._ask(self.nvml.nvmlDeviceGetClockInfo, self.card, self.nvml.NVML_CLOCK_MEM) * 1e6
        )

    def temperature_c(self) -> float:
        # NVML 13 deprecates the first name; drivers of the 12s lack the second.
        return self._any_of(
            ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"),
            self.card,
            self.nvml.NVML_TEMPERATURE_GPU,
        )

    def power_w(self) -> float:
        self._refuse_shared()
        return self._ask(self.nvml.nvmlDeviceGetPowerUsage, self.card) / 1e3  # milliwatts

    def energy_j(self) -> float:
        """The total-energy counter: joules since the driver was loaded."""
        self._refuse_shared()
        return (
            self._ask(self.nvml.nvmlDeviceGetTotalEnergyConsumption, self.card) / 1e3
        )  # millijoules

    def throttle_reasons(self) -> list[str]:
        """Names of what holds the clocks down now."""
        # The first name came with driver 535; the second goes with CUDA 14.
        bits = self._any_of(
            ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
            self.card,
        )
        return [name for bit, name in THROTTLE_REASONS.items() if bits & bit]

    def _refuse_shared(self) -> None:
        if self.shared:
            raise Missing(self.shared)

    def _mig_mode(self) -> bool:
        try:
            return self._ask(self.nvml.nvmlDeviceGetMigMode, self.card)[0] == 1
        except Missing:
            return False  # a card without MIG

    def _ask(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except (
            Exception
        ) as error:  # NVMLError, and what ctypes or a half-installed driver may raise
            raise Missing(f"NVML: {str(error) or type(error).__name__}") from error

    def _any_of(self, names: tuple[str, ...], *args: Any) -> Any:
        """The first of several names that both this nvidia-ml-py and this driver know."""
        missing = Missing(f"NVML: this nvidia-ml-py has no {names[0]}")
        for name in names:
            if hasattr(self.nvml, name):
                try:
                    return self._ask(getattr(self.nvml, name), *args)
                except Missing as error:
                    missing = error
                    if (
                        getattr(error.__cause__, "value", None)
                        != self.nvml.NVML_ERROR_FUNCTION_NOT_FOUND
                    ):
                        break
        raise missing


class Gpm:
    """Counters of the GPU's performance monitor between two moments: Hopper and later, without
    root."""

    def __init__(self, card: Card):
        """Takes the first sample.  Raises Missing."""
        self.card, self.samples = card, []
        nvml = card.nvml
        if card.shared and card.instance is None:
            raise Missing(card.shared)
        if not hasattr(nvml, "nvmlGpmQueryDeviceSupport"):
            raise Missing("this nvidia-ml-py has no GPM")
        if not card._ask(nvml.nvmlGpmQueryDeviceSupport, card.card).isSupportedDevice:
            raise Missing("GPM: not on this device (it came with Hopper)")
        try:
            for _ in range(2):
                self.samples.append(card._ask(nvml.nvmlGpmSampleAlloc))
            self._take(self.samples[0])
        except Missing:
            self._free()
            raise

    def read(self) -> tuple[dict[str, float], dict[str, str]]:
        """Take the second sample -> percents, and why others are missing.  Once."""
        nvml, ask = self.card.nvml, self.card._ask
        values: dict[str, float] = {}
        missing: dict[str, str] = {}
        try:
            self._take(self.samples[1])
            query = nvml.c_nvmlGpmMetricsGet_t()
            query.version, query.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, len(GPM_METRICS)
            query.sample1, query.sample2 = self.samples
            for i, constant in enumerate(GPM_METRICS.values()):
                query.metrics[i].metricId = getattr(nvml, constant)
            ask(nvml.nvmlGpmMetricsGet, query)
            for i, name in enumerate(GPM_METRICS):
                metric = query.metrics[i]
                if metric.nvmlReturn != nvml.NVML_SUCCESS:
                    missing[name] = f"GPM: {nvml.NVMLError(metric.nvmlReturn)}"
                elif not math.isfinite(metric.value):
                    missing[name] = f"GPM: it read {metric.value}"
                else:
                    values[name] = float(metric.value)
        except Exception as error:
            missing = {name: f"GPM: {error}" for name in GPM_METRICS if name not in values}
        finally:
            self._free()
        return values, missing

    def _take(self, sample: Any) -> None:
        nvml, ask, card = self.card.nvml, self.card._ask, self.card
        if card.instance is None:
            ask(nvml.nvmlGpmSampleGet, card.card, sample)
        else:
            ask(nvml.nvmlGpmMigSampleGet, card.card, card.instance, sample)

    def _free(self) -> None:
        for sample in self.samples:
            with contextlib.suppress(Missing):  # a few bytes until the process ends
                self.card._ask(self.card.nvml.nvmlGpmSampleFree, sample)
        self.samples = []
