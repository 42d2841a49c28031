"""The process that touches the device.  Jobs come as JSON lines on stdin, events go as JSON lines
to a pipe of its own.

It is apart from the suite so that a crash, a hang or a poisoned CUDA context costs one point.  It
dies with its parent: by the kernel's parent-death signal on Linux, and elsewhere when its stdin
closes.

Events: hello {environment}; round {stage, samples_s}; done {ends, ...};
failed {outcome, reason, ends, fields}.  With `ends` the
process is going, since its CUDA context may be poisoned.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import traceback
from typing import Any, TextIO

PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"])
    args = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent decides
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the signal was asked for
            sys.exit(1)
    with os.fdopen(args.events_fd, "w", buffering=1) as events:
        serve(sys.stdin, events, args.device)


def serve(jobs: TextIO, events: TextIO, device_name: str | None) -> None:
    """Answer jobs until stdin closes."""
    # torch is imported here, after the parent-death signal is set: it takes seconds.
    import torch

    from bench.core.errors import EnvironmentFault
    from bench.measure.device.environment import choose_device, describe
    from bench.measure.probes.sentinel import Sentinel
    from bench.measure.timing.clock import clock_for

    def send(event: str, **fields: Any) -> None:
        events.write(json.dumps({"event": event, **fields}) + "\n")
        events.flush()

    try:
        device = choose_device(device_name)
        send("hello", environment=describe(device).model_dump(mode="json"))
    except EnvironmentFault as error:
        send("failed", outcome="error", reason=str(error))
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = (
        False  # cuDNN's default is TF32
    )
    clock, sentinel = clock_for(device), None
    for line in jobs:
        job = json.loads(line)
        try:
            timed = job["job"] in ("ceilings", "point", "together")
            sentinel = sentinel or (Sentinel(device, clock) if timed else None)
            before = sentinel.read() if timed else None
            result = run_job(
                job,
                device,
                clock,
                lambda stage, samples: send("round", stage=stage, samples_s=samples),
            )
        except Exception as error:
            outcome, reason = classify(error)
            if outcome == "error":
                traceback.print_exc()
            broken = device.type == "cuda" and not context_survives(error)
            send("failed", outcome=outcome, reason=reason, ends=broken, fields=fields_of(error))
            if broken:
                return  # a fresh process takes the next job
            continue
        after = _read_after(sentinel, device) if timed else None
        broken = timed and after is None
        drift = (
            {"sentinel": None if broken else {"before_s": before, "after_s": after}}
            if timed
            else {}
        )
        send("done", **result, **drift, ends=broken)
        if broken:
            return


def _read_after(sentinel: Any, device: Any) -> float | None:
    """The sentinel once more; None where the context is broken, by a graph that could not be
    captured after the samples: what was measured before is kept, and this process ends."""
    import torch

    try:
        if device.type == "cuda":
            torch.randn(
                1, device=device
            )  # a failed capture may leave the generator as if it still went on
        return sentinel.read()
    except RuntimeError:
        traceback.print_exc()
        return None


def run_job(job: dict[str, Any], device: Any, clock: Any, on_round: Any) -> dict[str, Any]:
    """A point or the ceilings -> the fields of its record that only the device can give."""
    import torch

    from bench.core.known_faults import fault_of
    from bench.core.specs.point import Point
    from bench.core.specs.suite import Sampling
    from bench.measure.attention.backends import unsupported_reason
    from bench.measure.device.machine import this_machine
    from bench.measure.points.single import Unsupported, measure_point
    from bench.measure.points.together import measure_together
    from bench.measure.probes.ceilings import measure_ceilings
    from bench.measure.timing.clock import planted_slowdown

    if job["job"] == "doctor":
        from bench.measure.probes.doctor import examine

        return examine(device, clock, job["folder"])
    if job["job"] == "rates":
        from bench.measure.probes.doctor import quick_rates

        return quick_rates(device, clock, job["dtypes"])
    if job["job"] == "probes":
        from bench.measure.points.single import free_memory
        from bench.measure.probes.ceilings import planned_probes

        free = job.get("memory_bytes") or (
            free_memory(device) if job["device"] == device.type else None
        )
        return {"probes": planned_probes(job["device"], [tuple(r) for r in job["recipes"]], free)}
    if job["job"] == "peak":
        from bench.measure.points.versus import measure_peak

        return measure_peak(Point.model_validate(job["point"]), job["stage"], device)
    if job["job"] == "count":
        return _count_only(Point.model_validate(job["point"]))
    plan = Sampling.model_validate(job["sampling"])
    if job["job"] == "ceilings":
        recipes = [tuple(r) for r in job["recipes"]]
        # A backend that this device lacks costs its own probe, not the others'.
        machine = this_machine(device)
        reasons = {
            pair: "dtype tf32 needs CUDA"
            if pair[0] == "tf32" and device.type != "cuda"
            else unsupported_reason(pair[1], machine)
            for pair in recipes
        }
        lacking = dict.fromkeys(why for why in reasons.values() if why)
        possible = [pair for pair in recipes if reasons[pair] is None]
        if not possible:
            raise Unsupported("; ".join(lacking))
        probes, telemetry, missing = measure_ceilings(
            device, clock, plan, possible, prior=job["prior"], on_round=on_round
        )
        left_out = [*lacking, *missing]
        return {
            "left_out": f"left out: {'; '.join(left_out)}" if left_out else None,
            "probes": [p.model_dump(mode="json") for p in probes],
            "telemetry": {kind: t.model_dump(mode="json") for kind, t in telemetry.items()},
        }
    clock, note = planted_slowdown(clock, device)
    asked = job["points"] if job["job"] == "together" else [job["point"]]
    fault = fault_of(
        device.type, torch.__version__, tuple(stage for point in asked for stage in point["stages"])
    )
    note = "; ".join(said for said in (note, fault) if said) or None
    if note:
        print(f"warning: {note}", file=sys.stderr)
    if job["job"] == "together":
        points = [Point.model_validate(p) for p in job["points"]]
        counted = [_counted(point) for point in points]
        measured = measure_together(
            points,
            counted,
            device,
            clock,
            plan,
            prior=job["prior"],
            on_round=lambda i, stage, samples: on_round(f"{i}/{stage}", samples),
        )
        return {
            "note": note,
            "points": [
                {**_point_fields(point, counts, *fields), **_correctness(point)}
                for point, counts, fields in zip(points, counted, measured, strict=True)
            ],
        }
    point = Point.model_validate(job["point"])
    counts = _counted(point)
    if job.get("baseline") is not None:
        from bench.measure.points.against import measure_against
        from bench.results.records import Reused

        baseline = Point.model_validate(job["baseline"])
        reused = {
            stage: Reused.model_validate(reading)
            for stage, reading in job.get("reused", {}).items()
        }
        *fields, against = measure_against(
            point,
            baseline,
            counts,
            _counted(baseline),
            device,
            clock,
            plan,
            prior=job["prior"],
            on_round=on_round,
            reused=reused,
        )
        return {
            "note": note,
            "against": against.model_dump(mode="json"),
            **_point_fields(point, counts, *fields),
            **_correctness(point),
        }
    timings, memory, telemetry = measure_point(
        point, counts, device, clock, plan, prior=job["prior"], on_round=on_round
    )
    return {
        "note": note,
        **_point_fields(point, counts, timings, memory, telemetry),
        **_correctness(point),
    }


def _point_fields(
    point: Any, counts: Any, timings: dict[str, Any], memory: Any, telemetry: Any
) -> dict[str, Any]:
    from bench.measure.attention.ran import noted

    ran = noted(point)
    return {
        "attention_ran": None if ran is None else ran.model_dump(mode="json"),
        "tokens": counts.tokens,
        "counts": {stage: count.model_dump(mode="json") for stage, count in counts.stages.items()},
        "timings": {stage: timing.model_dump(mode="json") for stage, timing in timings.items()},
        "memory": memory.model_dump(mode="json"),
        "telemetry": {stage: t.model_dump(mode="json") for stage, t in telemetry.items()},
    }


def _correctness(point: Any) -> dict[str, Any]:
    from bench.measure.attention.correctness import correctness_of

    read = correctness_of(point)
    return {"correctness": read.model_dump(mode="json") if read else None}


_COUNTS: dict[tuple[str, bool, bool], Any] = {}


def _counted(point: Any) -> Any:
    """Counts of every stage, as they were shipped or made once: a budget asks for them before the
    point's turn comes."""
    from bench.count.shipped import shipped_count
    from bench.measure.points.single import count_stages

    key = (point.subject, "train_step" in point.stages, "trajectory" in point.stages)
    if key not in _COUNTS:
        _COUNTS[key] = shipped_count(point) or count_stages(point)
    return _COUNTS[key]


def _count_only(point: Any) -> dict[str, Any]:
    """The counts of a point's stages, and the bytes of the weights that it builds."""
    from bench.core.specs.recipe import DTYPE_BYTES
    from models.pipeline import PARTS_OF_STAGE

    counts = _counted(point)
    parts = {PARTS_OF_STAGE[stage] for stage in point.stages}
    return {
        "counts": {stage: count.model_dump(mode="json") for stage, count in counts.stages.items()},
        "weights": sum(counts.params[part] for part in parts) * DTYPE_BYTES[point.recipe.dtype],
    }


LIBRARY_OOM = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED")
"""In what CUDA itself, cuBLAS and cuDNN say where memory runs out outside PyTorch's allocator."""


def context_survives(error: Exception) -> bool:
    """Is the CUDA context still good after this?  An allocation that PyTorch refused, or a check
    before anything ran, leaves it as it was; of anything else that is not known."""
    from bench.measure.attention.correctness import WrongNumbers
    from bench.measure.points.single import OutOfMemory, Unsupported

    refused = (OutOfMemory, Unsupported, WrongNumbers, MemoryError)
    return isinstance(error, refused) or type(error).__name__ == "OutOfMemoryError"


def fields_of(error: Exception) -> dict[str, Any]:
    """What a failed job says for its record, beside outcome and reason."""
    from bench.measure.attention.correctness import WrongNumbers

    read = error.correctness if isinstance(error, WrongNumbers) else None
    return {"correctness": read.model_dump(mode="json")} if read else {}


def classify(error: Exception) -> tuple[str, str]:
    """(outcome, one line) of a failed job."""
    from bench.measure.attention.correctness import WrongNumbers
    from bench.measure.points.single import OutOfMemory, Unsupported

    line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, (OutOfMemory, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
        return "oom", line or "out of memory"
    if isinstance(error, RuntimeError) and any(words in str(error) for words in LIBRARY_OOM):
        return "oom", line
    if isinstance(error, Unsupported):
        return "skipped_unsupported", line
    if isinstance(error, WrongNumbers):
        return "error", line
    return "error", f"{type(error).__name__}: {line}"


if __name__ == "__main__":
    main()
