"""What the card does while a stage is timed: clocks, power, temperature, throttling; then its
energy and utilisation.

A background thread asks NVML every 100 ms.  It makes no CUDA call, so it adds nothing to the stream
that is timed; on a CPU there is no thread.  The power reading sees part of the time only, so energy
is read from the card's counter, over whole, synchronised calls of at least a second together.
Where one call takes that long by itself, the counter is read around each of the timed samples, and
no call is made for it alone; else a window of its own follows the samples.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.measure.device.environment import gpu_name
from bench.measure.device.looks import Tick, Window, energy_over, nothing, summarised
from bench.measure.device.nvml import Card, Gpm, Missing
from bench.measure.timing.clock import Clock
from bench.measure.timing.sampling import ENERGY_WINDOW_S
from bench.results.readings import READINGS, UTILISATIONS, Energy, StageTelemetry

INTERVAL_S = 0.1


class Monitor:
    """Watches one device for the time of a `with`.  Without a card it says why in every stage's
    telemetry."""

    def __init__(self, card: Card | None, reason: str | None, bandwidth: float | None = None):
        """bandwidth: the datasheet's, bytes/s."""
        self.card, self.reason, self.bandwidth = card, reason, bandwidth
        self.ticks: list[Tick] = []
        self.calls: dict[str, int] = {}
        self._last_s: dict[str, float] = {}
        """Of each stage's latest call."""
        self._windows: dict[str, list[Window]] = {}
        self._now: tuple[str, int] | None = None  # stage and call under way
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Monitor":
        if self.card is not None:
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)  # a driver that hangs is not waited for

    def expect(self, stage: str, call_s: float) -> None:
        """A call of this stage was made before, out of sight, and took so long."""
        self._last_s[stage] = call_s

    def timed(self, stage: str, time_once: Callable[[], float]) -> float:
        """Run and time one call of a stage -> its seconds.  time_once synchronises at its ends."""
        number = self.calls.get(stage, 0)
        self._now, self.calls[stage] = (stage, number), number + 1
        if self.card is not None and self._last_s.get(stage, 0.0) >= ENERGY_WINDOW_S:
            seconds = self._in_window(stage, number, time_once)
        else:
            seconds = time_once()
        self._last_s[stage] = seconds
        return seconds

    def finish(
        self,
        stage: str,
        warmup: int,
        call: Callable[[], Any] | None = None,
        clock: Clock | None = None,
    ) -> StageTelemetry:
        """The stage's telemetry, its first `warmup` calls left out.  With a call, its energy is
        measured now."""
        if self.card is None:
            return nothing(self.reason or "")
        timed_calls = self.calls.get(stage, 0)
        energy = None
        found: dict[str, float] = {}
        missing = dict.fromkeys(
            ("energy", *UTILISATIONS, "dram_bytes_per_s_derived"), "not measured for probes"
        )
        if call is not None and clock is not None:
            around = [w for w in self._windows.get(stage, []) if w.call >= warmup]
            energy, found, missing = (
                energy_over(around) if around else self._energy_window(stage, call, clock)
            )
            missing |= self._no_bandwidth(found, missing)
        self._now = None  # what comes before the next stage belongs to none
        ticks = [t for t in list(self.ticks) if t.stage == stage]
        timed = [t for t in ticks if warmup <= t.call < timed_calls]
        used = timed or [t for t in ticks if t.call >= timed_calls]
        dram = found.get("dram_util_percent")
        derived = None
        if dram is not None and "dram_bytes_per_s_derived" not in missing and self.bandwidth:
            derived = dram / 100 * self.bandwidth
        return summarised(
            used,
            missing,
            sampled_over="timed" if timed else "energy" if used else None,
            energy=energy,
            **{name: found.get(name) for name in UTILISATIONS},
            dram_bytes_per_s_derived=derived,
        )

    def _run(self) -> None:
        while True:
            now = self._now
            if now is not None:
                self.ticks.append(self._look(*now))
            if self._stop.wait(INTERVAL_S):
                return

    def _look(self, stage: str, call: int) -> Tick:
        assert self.card is not None
        values: dict[str, float] = {}
        missing: dict[str, str] = {}
        reasons = None
        for name in READINGS:
            try:
                values[name] = float(getattr(self.card, name)())
            except Missing as error:
                missing[name] = str(error)
        try:
            reasons = self.card.throttle_reasons()
        except Missing as error:
            missing["throttle_fractions"] = str(error)
        return Tick(time.monotonic(), stage, call, values, reasons, missing)

    def _in_window(self, stage: str, number: int, time_once: Callable[[], float]) -> float:
        """A long call with the counter and GPM read at both ends.  What cannot be read costs no
        call."""
        before, gpm, missing = self._open()
        found: dict[str, float] = {}
        joules = None
        try:
            seconds = time_once()
            if before is not None:
                joules = self._joules_since(before, seconds, missing)
        finally:
            if gpm is not None:
                found, gone = gpm.read()
                missing |= gone
        if seconds >= ENERGY_WINDOW_S:  # else the call before was long for another reason
            self._windows.setdefault(stage, []).append(
                Window(number, seconds, joules, found, missing)
            )
        return seconds

    def _open(self) -> tuple[float | None, Gpm | None, dict[str, str]]:
        """(joules on the counter, a GPM sample, why one is missing)."""
        assert self.card is not None
        missing: dict[str, str] = {}
        gpm, before = None, None
        try:
            gpm = Gpm(self.card)
        except Missing as error:
            missing.update(dict.fromkeys(UTILISATIONS, str(error)))
        try:
            before = self.card.energy_j()
        except Missing as error:
            missing["energy"] = str(error)
        return before, gpm, missing

    def _energy_window(
        self, stage: str, call: Callable[[], Any], clock: Clock
    ) -> tuple[Energy | None, dict[str, float], dict[str, str]]:
        """Whole calls for at least a second, the counter and GPM read at both ends.

        `clock.time` synchronises at its ends, so at both readings nothing is queued."""
        before, gpm, missing = self._open()
        energy = None
        found: dict[str, float] = {}
        if gpm is not None or before is not None:
            start, calls, window_s = clock.now(), 0, 0.0
            try:
                while calls == 0 or window_s < ENERGY_WINDOW_S:
                    self.timed(stage, lambda: clock.time(call))
                    calls += 1
                    window_s = clock.now() - start
                joules = None if before is None else self._joules_since(before, window_s, missing)
                if joules is not None:
                    energy = Energy(
                        energy_j=joules / calls,
                        power_w=joules / window_s,
                        calls=calls,
                        window_s=window_s,
                    )
            finally:
                if gpm is not None:
                    found, gone = gpm.read()
                    missing.update(gone)
        return energy, found, missing

    def _no_bandwidth(self, found: dict[str, float], missing: dict[str, str]) -> dict[str, str]:
        """Why no bandwidth is derived from the utilisation, if none is."""
        assert self.card is not None
        why = None
        if "dram_util_percent" not in found:
            why = missing["dram_util_percent"]
        elif self.card.instance is not None:
            why = "MIG: a slice has part of the datasheet's bandwidth"
        elif self.bandwidth is None:
            why = "no datasheet gives this device's bandwidth"
        return {} if why is None else {"dram_bytes_per_s_derived": why}

    def _joules_since(
        self, before: float, window_s: float, missing: dict[str, str]
    ) -> float | None:
        """Joules that the counter moved by in the window; None, and why, where it is not to be
        had."""
        assert self.card is not None
        try:
            joules = self.card.energy_j() - before
        except Missing as error:
            missing["energy"] = str(error)
            return None
        if joules <= 0:
            missing["energy"] = f"the energy counter moved by {joules:g} J in {window_s:.3g} s"
            return None
        return joules


def monitor(device: torch.device) -> Monitor:
    """A monitor for the device.  Never raises: what cannot be watched is said in each stage's
    telemetry."""
    if device.type != "cuda":
        return Monitor(None, "no NVML on a CPU")
    properties = torch.cuda.get_device_properties(device)
    if not hasattr(properties, "uuid"):
        return Monitor(None, "this torch does not tell the device's UUID")
    name = gpu_name(properties.name)
    try:
        card = Card(str(properties.uuid))
    except Missing as error:
        return Monitor(None, str(error))
    return Monitor(
        card, None, load(Gpu, name).bandwidth_bytes_per_s if name in names("gpus") else None
    )
