"""Points and ceilings of one card, made up, whose true rates are known."""

import numpy as np

from bench.calibrate.cost.seconds import Priced
from bench.calibrate.cost.work import Work
from bench.core.load import load, load_point
from bench.core.specs.suite import Suite
from bench.measure.timing.sampling import summarise
from bench.results.counts import Operators, StageCount
from bench.results.records import AttentionRan, CeilingsRecord, PointRecord, Probe
from bench.results.store import SUITE, Store
from support.calibrations import CEILINGS, THETA
from support.pages import gpu_environment
from support.records import count, point_record

OWN, PUBLIC = "eager-bf16-cudnn-chunks", "eager-bf16-cudnn"


def counted(
    tokens: int, width: int = 1536, depth: int = 30, head: int = 128, conv: int = 0, times: int = 1
) -> StageCount:
    """A transformer's forward, or (conv) a decoder of so many channels; `times` of each
    operator."""
    sizes = [
        (tokens, 3 * width, width),
        (tokens, width, width),
        (tokens, 4 * width, width),
        (tokens, width, 4 * width),
    ]
    rows = [("linear", *size, 2 * int(np.prod(size)), 0, 0, times * depth) for size in sizes]
    rows += [
        ("attention", tokens, tokens, head, 4 * tokens * tokens * width, 0, 0, times * depth),
        ("memory", 0, 0, 0, 0, 4 * tokens * width, 0, 12 * times * depth),
        ("activation", 0, 0, 0, 0, 16 * tokens * width, 0, times * depth),
    ]
    if conv:
        rows = [
            ("conv", 64 * tokens, conv, 27 * conv, 2 * 64 * tokens * conv * 27 * conv, 0, 0, 12),
            ("memory", 0, 0, 0, 0, 4 * tokens * conv, 0, 20),
        ]
    columns = map(list, zip(*rows, strict=True))
    flops = {
        kind: sum(r[4] * r[7] for r in rows if r[0] == kind)
        for kind in ("linear", "attention", "conv")
    }
    return count(
        operators=Operators(**dict(zip(Operators.model_fields, columns, strict=True))),
        linear_flops=flops["linear"],
        attention_flops=flops["attention"],
        conv_flops=flops["conv"],
    )


def record(
    recipe: str,
    stages: dict[str, StageCount],
    *,
    model: str = "sora-20b",
    tokens: int = 0,
    slow: float = 1.0,
    ran: str | None = "cudnn",
    slowed: str | None = None,
) -> PointRecord:
    """Its stages as the planted rates have them; `slowed` takes `slow` times as long."""
    workload = "480p-81f" if model.startswith("wan") else "sora-1min-512"
    point = load_point(
        model, workload, recipe, {"workload.steps": tokens} if tokens else {}
    )  # another point for each
    timings = {}
    for stage, c in stages.items():
        s = float(Priced([Work.of(c)], CEILINGS).seconds(THETA)[0]) * (
            slow if stage == slowed else 1.0
        )
        timings[stage] = summarise(
            [s * f for f in (0.999, 1.0, 1.0, 1.0, 1.0, 1.0, 1.001)], [], "converged", True
        )
    return point_record().model_copy(
        update={
            "fingerprint": point.fingerprint + "".join(stages),
            "model": point.model.name,
            "workload": point.workload.name,
            "recipe": recipe,
            "point": point.model_dump(mode="json"),
            "tokens": tokens or 1,
            "counts": stages,
            "timings": timings,
            "environment": gpu_environment(),
            "attention_ran": AttentionRan(backend=ran, chosen_by="torch", kernel=None)
            if ran
            else None,
        }
    )


def own_points(recipe: str = OWN, ran: str | None = "cudnn") -> list[PointRecord]:
    sizes = [
        (1024, 1536, 30),
        (2048, 768, 40),
        (4096, 3072, 8),
        (8192, 1536, 10),
        (16384, 1536, 6),
        (30720, 3072, 2),
    ]
    return [
        record(recipe, {"denoise_step": counted(t, w, d)}, tokens=t, ran=ran) for t, w, d in sizes
    ] + [
        record(recipe, {"vae_decode": counted(t, conv=c)}, tokens=t, ran=None)
        for t, c in ((512, 64), (1024, 128), (2048, 256))
    ]


def probe(kind: str, rate: float, work: int, shape: dict[str, int], **more: str | None) -> Probe:
    compute = kind in ("gemm", "attention", "conv3d")
    return Probe(
        kind=kind,
        shape=shape,
        flops=work if compute else None,
        bytes_moved=None if compute else work,
        timing=summarise([work / rate] * 7, [], "converged", True),
        **{"dtype": "bf16" if compute or kind == "activation" else "fp32", "backend": None, **more},
    )


def attention_probe(
    rate: float, tokens: int, backend: str = "cudnn", ran: str | None = None
) -> Probe:
    return probe(
        "attention",
        rate,
        10**15,
        {"batch": 1, "heads": 24, "tokens": tokens, "head_dim": 128},
        backend=backend,
        backend_ran=ran,
    )


def ceilings(*attention: Probe) -> CeilingsRecord:
    """Of the planted device."""
    probes = [
        probe("gemm", CEILINGS.gemm_flops_per_s, 10**13, {"m": 8192, "n": 8192, "k": 8192}),
        *(attention or [attention_probe(CEILINGS.attention_flops_per_s, 16384)]),
        probe(
            "conv3d",
            CEILINGS.conv_flops_per_s,
            10**13,
            {"channels": 256, "frames": 10, "height": 250, "width": 400},
        ),
        probe("activation", CEILINGS.activation_bytes_per_s, 10**9, {"bytes": 10**9}),
        *(probe("copy", rate, int(size), {"bytes": int(size)}) for size, rate in CEILINGS.ladder),
    ]
    return CeilingsRecord(
        fingerprint="c",
        suite="s",
        started_utc="2026-01-01T00:00:00+00:00",
        wall_s=1.0,
        outcome="ok",
        reason=None,
        environment=gpu_environment(),
        probes=probes,
        telemetry=None,
    )


def result(directory, records, suite: str = "h100"):
    with Store(directory) as store:
        for r in (ceilings(), *records):
            store.append_record(r)
    (directory / SUITE).write_text(load(Suite, suite).model_dump_json())
    return directory
