"""The tables of `doctor`: is this node sound, is the harness's clock, and which rates does the
device reach?"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.core.specs.gpu import Gpu
from bench.core.units import seconds, si
from bench.report.numbers import binary, digits, percent, traffic_rate, work_rate
from bench.report.tables.device import backend
from bench.report.tables.table import (
    Cell,
    Table,
    claimed,
    counted,
    measured,
    number,
    numbers,
    quantity,
    table,
)
from bench.results.records import MEMORY_PROBES, CeilingsRecord, PointRecord, Probe
from bench.results.store import card_ceilings
from bench.studies.acceptance.others import Reached, rates_of
from bench.studies.acceptance.verdict import Acceptance

if TYPE_CHECKING:
    from bench.calibrate.cards import Card, Cards


def acceptance_table(device_name: str, acceptance: Acceptance) -> Table:
    """Each check of a node, with its verdict."""
    return table(
        f"{device_name}: {acceptance.verdict}",
        ["check", "verdict", "measured", "expected", "why"],
        [(c.name, c.verdict, c.measured, c.expected, c.why or "") for c in acceptance.checks],
        note="measured, against published and datasheet figures",
    )


def acceptance_document(environment: Any, acceptance: Acceptance) -> dict[str, Any]:
    """`doctor --json`."""
    return {
        **acceptance.as_dict(),
        "gpu": environment.gpu,
        "device_name": environment.device_name,
        "device": environment.device,
        "provenance": "measured",
    }


def timer_table(point: str, checked: Mapping[str, Any]) -> Table:
    """From `doctor --timer --json`'s document."""
    host_bound = "host bound" if checked["host_bound"] else "not host bound"
    ways = {
        "bare loop": ("bare_loop_s", "1"),
        "this harness": ("harness_s", _ratio(checked, "harness_ratio")),
        "this harness without its hold": (
            "without_hold_s",
            checked["hold_reason"] or _ratio(checked, "without_hold_ratio"),
        ),
        "torch.utils.benchmark": ("torch_benchmark_s", _ratio(checked, "torch_benchmark_ratio")),
        "CUDA graph replay": ("graph_replay_s", checked["graph_reason"] or host_bound),
    }
    return table(
        f"Seconds of a denoising step of {point}",
        ["way", measured("median"), measured("ratio to the bare loop")],
        [
            (way, number(checked[name] or None, seconds), ratio)
            for way, (name, ratio) in ways.items()
        ],
        note=f"{checked['rounds']} rounds in turns",
    )


def _ratio(checked: Mapping[str, Any], name: str) -> str:
    return quantity(checked[name], digits(5)).text


def ceilings_table(record: CeilingsRecord, gpu: Gpu | None) -> Table:
    """Each probe.  Of the memory probes only the ceilings: bandwidth_table has all sizes."""
    shown = [
        p for p in record.probes if p.kind not in MEMORY_PROBES or p is record.best(p.kind, p.dtype)
    ]
    return table(
        f"Ceilings of {record.environment.device_name}",
        [
            "probe",
            "dtype",
            "shape",
            measured("rate"),
            claimed("datasheet", detail=True),
            measured("of datasheet"),
            measured("n"),
        ],
        [_probe_cells(p, gpu) for p in shown],
        note="median of n calls",
    )


def _probe_cells(probe: Probe, gpu: Gpu | None) -> list[Cell | str]:
    sheet = datasheet_rate(gpu, probe.kind, probe.dtype)
    show = traffic_rate if probe.flops is None else work_rate
    return [
        probe.kind,
        " ".join(filter(None, (probe.dtype, backend(probe)))),
        " ".join(f"{name}={size:,}" for name, size in probe.shape.items()),
        number(probe.rate, show, f"median of n = {probe.timing.n} calls, {probe.timing.stop}"),
        number(sheet, show, gpu.source if sheet else "none is known"),
        number(probe.rate / sheet if sheet else None, percent()),
        number(probe.timing.n, str),
    ]


def datasheet_rate(gpu: Gpu | None, kind: str, dtype: str) -> float | None:
    """FLOP/s or bytes/s that the datasheet gives for a kind of probe; None where it gives none."""
    if gpu is None:
        return None
    if kind in MEMORY_PROBES:
        return gpu.bandwidth_bytes_per_s
    return gpu.peak_flops_per_s.get(dtype) if kind in ("gemm", "attention", "conv3d") else None


def bandwidth_table(record: CeilingsRecord) -> Table:
    """Bytes read and written a second; where a cache ends, the rate falls."""
    probes = {
        (p.dtype, p.shape["bytes"], p.kind): p for p in record.probes if p.kind in MEMORY_PROBES
    }
    sizes = dict.fromkeys((dtype, size) for dtype, size, _ in probes)
    return table(
        "Memory bandwidth by size of an array",
        [counted("array"), "dtype", *map(measured, MEMORY_PROBES)],
        [
            [
                number(size, binary),
                dtype,
                *(_bandwidth(probes.get((dtype, size, kind))) for kind in MEMORY_PROBES),
            ]
            for dtype, size in sizes
        ],
    )


def _bandwidth(probe: Probe | None) -> Cell:
    if probe is None:
        return number(None)
    return number(probe.rate, traffic_rate, f"median of n = {probe.timing.n} calls")


def gemm_ceiling(record: CeilingsRecord) -> str:
    """The product that the GEMM ceiling comes from: on a CPU often one that stays in its cache."""
    best = record.best("gemm")
    if best is None:
        return "GEMM ceiling: not measured"
    shape = " ".join(f"{name}={size:,}" for name, size in best.shape.items())
    return (
        f"GEMM ceiling: {si(best.rate, 'FLOP/s')}, the best of the shapes, at {shape} in"
        f" {best.dtype}"
    )


def cards_table(compared: "Cards", records: Sequence[PointRecord | CeilingsRecord]) -> Table:
    """Each card beside the typical one."""
    return table(
        "Cards beside one another",
        [
            "card",
            numbers("shared stages"),
            numbers("seconds over the typical card's", "fitted"),
            numbers("GEMM", "measured"),
            numbers("copy", "measured"),
            "note",
        ],
        [_card_cells(card, card_ceilings(records).get(card.id)) for card in compared.cards],
        note=f"90 % intervals; the cards spread by {compared.spread:.1%} (standard deviation)",
    )


def _card_cells(card: "Card", ceilings: CeilingsRecord | None) -> list[Cell | str]:
    peaks = {kind: ceilings and ceilings.peak(kind) for kind in ("gemm", "copy")}
    return [
        card.id,
        number(card.points, str),
        quantity(card.factor),
        number(peaks["gemm"], lambda r: f"{r / 1e12:.4g} TFLOP/s"),
        number(peaks["copy"], lambda r: f"{r / 1e9:.4g} GB/s"),
        card_note(card),
    ]


def card_note(card: "Card") -> str:
    """ "" of a usual card."""
    if not card.off:
        return ""
    share = card.factor.value - 1
    return f"{abs(share):.0%} {'slower' if share > 0 else 'faster'} than the typical card"


def cards_document(compared: "Cards") -> dict[str, Any]:
    """The same for --json."""
    return {
        "cards": [
            {
                "card": card.id,
                "shared_stages": card.points,
                "seconds_over_typical": card.factor.as_dict(),
                "standard_error": card.se,
                "off": card.off,
            }
            for card in compared.cards
        ],
        "spread": compared.spread,
        "worst": compared.worst.id if compared.worst else None,
        "provenance": "fitted",
    }


def others_table(here: Mapping[str, Any], others: Sequence[Reached]) -> Table:
    """This card beside the others whose ceilings lie here."""
    own = Reached("this card", *rates_of(here).values(), "now")
    return table(
        "Beside other cards of this kind, measured here",
        ["card", numbers("GEMM", "measured"), numbers("copy", "measured"), "result"],
        [
            [
                card.card,
                number(card.gemm_flops_per_s, lambda r: f"{r / 1e12:.4g} TFLOP/s"),
                number(card.copy_bytes_per_s, lambda r: f"{r / 1e9:.4g} GB/s"),
                card.result,
            ]
            for card in (own, *others)
        ],
    )
