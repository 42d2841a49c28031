"""Tables for people, by rich.  Every figure carries its provenance."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from bench.calibrate.calibration import Errors, Fit, TrainingFit
from bench.calibrate.predict import Estimate
from bench.core.errors import one_line
from bench.core.quantity import Quantity
from bench.core.specs.gpu import Gpu
from bench.core.specs.model import DIFFUSION_STAGES
from bench.core.units import seconds, si
from bench.report.tables.ablations import ablation_rows, combination_rows
from bench.report.tables.device import attending, backend, bandwidth_rows, launching, throttling
from bench.results.records import MEMORY_PROBES, CeilingsRecord, PointRecord
from bench.studies.ablations.gains import Ablation
from bench.studies.pencil.rows import Row
from bench.studies.pencil.waterfall import Bar

if TYPE_CHECKING:
    from bench.calibrate.holdout import HeldOut  # scipy, which tables of counts and claims need not


def table(title: str, *columns: str, rows: Iterable[Iterable[str]]) -> Table:
    """Columns whose name starts with '#' are numbers, right-aligned."""
    out = Table(title=_plain(title), title_justify="left", header_style="bold")
    for column in columns:
        out.add_column(
            _plain(column.removeprefix("#")),
            justify="right" if column.startswith("#") else "left",
            overflow="fold",
            no_wrap=column == "stage",
        )
    for row in rows:
        out.add_row(*map(_plain, row))
    return out


def _plain(text: str) -> Text:
    """Names are the user's: [x] is no markup, :x: no picture, and a control character is shown."""
    return Text(one_line(text))


def quantity(q: Quantity | Mapping[str, float] | None, digits: int = 3) -> str:
    """'0.418 (0.39 to 0.45)'."""
    if q is None:
        return "–"
    d = q.as_dict() if isinstance(q, Quantity) else q
    return f"{d['value']:.{digits}g} ({d['low']:.{digits}g} to {d['high']:.{digits}g})"


def duration(q: Quantity) -> str:
    """'1.2 h (1.1 h to 1.4 h)'."""
    return f"{seconds(q.value)} ({seconds(q.low)} to {seconds(q.high)})"


def count_table(count: Mapping[str, Any]) -> Table:
    """From `count --json`'s document."""
    forward, bytes_, tokens = count["forward"], count["bytes"], count.get("autoregressive")
    rows = [
        ("parameters of the denoiser", f"{count['params']:,}"),
        ("latents (T, H, W)", " x ".join(map(str, count["latent_shape"]))),
        ("tokens", f"{count['tokens']:,}"),
        ("one forward", f"{si(forward['flops'], 'FLOP', 4)} = {si(forward['macs'], 'MAC', 4)}"),
        *(
            (f"  {kind}", f"{si(flops, 'FLOP', 4)}  {flops / forward['flops']:.1%}")
            for kind, flops in forward["by_class"].items()
            if flops
        ),
        *(
            [
                (
                    "prefill",
                    (
                        f"{si(tokens['prefill_flops'], 'FLOP', 4)} for {tokens['prefill_tokens']:,}"
                        f" tokens, {tokens['prefill_calls']:,} times"
                    ),
                )
            ]
            if tokens
            else []
        ),
        (
            "one token" if tokens else "one step",
            f"{si(count['step_flops'], 'FLOP', 4)} "
            + (
                f"over a cache of {tokens['cache_length']:,}"
                if tokens
                else f"({count['forwards_per_step']} forward(s))"
            ),
        ),
        ("text encoder", si(count["text_encode_flops"], "FLOP", 4)),
        *(
            [("given frames, encoded", si(count["condition_encode_flops"], "FLOP", 4))]
            if count["condition_encode_flops"]
            else []
        ),
        ("VAE encode", si(count["vae_encode_flops"], "FLOP", 4)),
        ("VAE decode", si(count["vae_decode_flops"], "FLOP", 4)),
        (
            f"whole video, {count['steps']:,} {'tokens in turn' if tokens else 'steps'}",
            si(count["video_flops"], "FLOP", 4),
        ),
        (
            "bytes of a forward, modelled",
            f"{si(bytes_['modelled_min'], 'B')} fused to {si(bytes_['modelled_max'], 'B')} unfused",
        ),
        (
            "fits (weights and a step, modelled)",
            ", ".join(gpu for gpu, fits in count["fits"].items() if fits)
            or "no card in configs/gpus",
        ),
        (
            "cross-check",
            (
                "fvcore = torch = closed form"
                if None not in count["cross_check"].values()
                else "fvcore = torch"
            ),
        ),
    ]
    return table(
        f"{count['model']} on {count['workload']} (counted)", "quantity", "#value", rows=rows
    )


def module_table(count: Mapping[str, Any]) -> Table:
    """FLOPs of a forward by module, blocks summed."""
    sums: dict[str, int] = {}
    for path, by_class in count["by_module"].items():
        parts = [p for p in path.split(".")[1:] if not p.isdigit()]
        if len(parts) == (2 if parts[:1] == ["blocks"] else 1):  # one level deep, two within blocks
            sums[".".join(parts)] = sums.get(".".join(parts), 0) + sum(by_class.values())
    total = count["forward"]["flops"]
    return table(
        "By module (counted; all blocks together)",
        "module",
        "#FLOP",
        "#share",
        rows=[(name, si(flops, "FLOP", 4), f"{flops / total:.1%}") for name, flops in sums.items()],
    )


def timer_table(point: str, checked: Mapping[str, Any]) -> Table:
    """From `check-timer --json`'s document."""

    def ratio(name: str) -> str:
        return quantity(checked[name], 5)

    return table(
        f"Seconds of a denoising step of {point} (measured, {checked['rounds']} rounds in turns)",
        "way",
        "#median",
        "#ratio to the bare loop",
        rows=[
            ("bare loop", seconds(checked["bare_loop_s"]), "1"),
            ("this harness", seconds(checked["harness_s"]), ratio("harness_ratio")),
            (
                "this harness without its hold",
                seconds(checked["without_hold_s"]) if checked["without_hold_s"] else "-",
                checked["hold_reason"] or ratio("without_hold_ratio"),
            ),
            (
                "torch.utils.benchmark",
                seconds(checked["torch_benchmark_s"]),
                ratio("torch_benchmark_ratio"),
            ),
            (
                "CUDA graph replay",
                seconds(checked["graph_replay_s"]) if checked["graph_replay_s"] else "-",
                checked["graph_reason"]
                or ("host bound" if checked["host_bound"] else "not host bound"),
            ),
        ],
    )


def ceilings_table(record: CeilingsRecord, gpu: Gpu | None) -> Table:
    rows = []
    for probe in record.probes:
        if probe.kind in MEMORY_PROBES and probe is not record.best(probe.kind, probe.dtype):
            continue  # in bandwidth_table
        compute = probe.flops is not None
        sheet = None
        if gpu is not None:
            sheet = gpu.peak_flops_per_s.get(probe.dtype) if compute else gpu.bandwidth_bytes_per_s
        rows.append(
            (
                probe.kind,
                " ".join(filter(None, (probe.dtype, backend(probe)))),
                " ".join(f"{k}={v:,}" for k, v in probe.shape.items()),
                si(probe.rate, "FLOP/s" if compute else "B/s"),
                f"{probe.rate / sheet:.0%}" if sheet else "–",
                str(probe.timing.n),
            )
        )
    return table(
        f"Ceilings of {record.environment.device_name} (measured, median of n)",
        "probe",
        "dtype",
        "shape",
        "#rate",
        "#of datasheet",
        "#n",
        rows=rows,
    )


def bandwidth_table(record: CeilingsRecord) -> Table:
    """Bytes moved a second against the size of an array: where a cache ends shows as a fall."""
    return table(
        f"Memory of {record.environment.device_name} by size of an array (measured)",
        "#array",
        "dtype",
        *(f"#{kind}" for kind in MEMORY_PROBES),
        rows=bandwidth_rows(record),
    )


def gemm_ceiling(record: CeilingsRecord) -> str:
    """Which product the GEMM ceiling is: on a CPU often one that stays in its cache."""
    best = record.best("gemm")
    if best is None:
        return "GEMM ceiling: not measured"
    shape = " ".join(f"{k}={v:,}" for k, v in best.shape.items())
    return (
        f"GEMM ceiling: {si(best.rate, 'FLOP/s')}, the best of the shapes, at {shape} in"
        f" {best.dtype}"
    )


def points_table(records: Iterable[PointRecord]) -> Table:
    rows = []
    for r in records:
        if r.outcome != "ok" or r.reason:
            rows.append((r.label, "", "", "", "", f"{r.outcome}: {r.reason}"))
        for stage, t in r.timings.items():
            attention = attending(r) if stage in DIFFUSION_STAGES else ""
            notes = throttling((r.telemetry or {}).get(stage)), launching(t), attention
            how = "; ".join(filter(None, [f"n={t.n} {t.stop}", *notes]))
            half = (t.high_s - t.low_s) / 2 / t.median_s
            rows.append(
                (
                    r.label,
                    stage,
                    f"{r.tokens:,}",
                    f"{seconds(t.median_s)} ±{half:.1%}",
                    si(r.counts[stage].flops / t.median_s, "FLOP/s"),
                    how,
                )
            )
    return table(
        "Points (measured: median, half its 95 % interval; under six samples, half their range)",
        "point",
        "stage",
        "#tokens",
        "#time",
        "#rate",
        "samples",
        rows=rows,
    )


def parameters_table(fit: Fit) -> Table:
    rows = []
    for name, p in fit.parameters.items():
        text = (
            "not measured"
            if p.value is None
            else quantity(p.model_dump(include={"value", "low", "high"}))
        )
        note = (
            "at bound"
            if p.at_bound
            else "held by its prior"
            if p.value is not None and not p.identified
            else ""
        )
        rows.append((name, text, p.unit, note))
    if fit.training is not None:
        name, value, low, high, unit, note = training_row(fit.training)
        rows.append((name, f"{value} ({low} to {high})", unit, note))
    return table(
        f"Calibration of {fit.title} (fitted, 90 % intervals)",
        "parameter",
        "#value",
        "unit",
        "note",
        rows=rows,
    )


def training_row(training: TrainingFit) -> tuple[str, str, str, str, str, str]:
    """Name, value, low, high, unit, note."""
    q, n = training.factor, len(training.stages)
    return (
        "train_step",
        f"{q.value:.3g}",
        f"{q.low:.3g}",
        f"{q.high:.3g}",
        "times the inference fit",
        f"{n} training step{'s' if n > 1 else ''}, no part of the rest",
    )


def errors_table(fit: Fit) -> Table:
    return table(
        "Error of predicted denoise steps that the fit had not seen",
        "how",
        *ERROR_COLUMNS,
        rows=error_rows(fit),
    )


def error_rows(fit: Fit) -> list[tuple[str, ...]]:
    """How, median, mean, worst, n."""
    return [
        ("leave one out", *error_cells(fit.leave_one_out)),
        ("leave a number of tokens out", *error_cells(fit.leave_a_size_out)),
        ("larger half from the smaller", *error_cells(fit.upward)),
        ("baseline: one MFU for all, leave one out", *error_cells(fit.constant_mfu_baseline)),
        ("noise floor: the medians' own intervals", *error_cells(fit.noise_floor)),
    ]


ERROR_COLUMNS = ("#median", "#mean", "#worst", "#n")


def error_cells(e: Errors | None) -> tuple[str, str, str, str]:
    return (
        ("–", "–", "–", "0")
        if e is None
        else (f"{e.median:.1%}", f"{e.mean:.1%}", f"{e.worst:.1%}", str(e.n))
    )


def holdout_table(rows: Iterable["HeldOut"]) -> Table:
    """Predicted against measured."""
    return table(
        "Predicted (90 % interval), then measured",
        "point",
        "stage",
        "#predicted",
        "#measured",
        "#error",
        "#one MFU for all",
        "inside",
        rows=[
            (
                r.point,
                r.stage,
                (
                    f"{seconds(r.predicted_s['value'])} ({seconds(r.predicted_s['low'])} to "
                    f"{seconds(r.predicted_s['high'])})"
                ),
                seconds(r.measured_s["value"]),
                f"{r.error:+.1%}",
                "–" if r.baseline_error is None else f"{r.baseline_error:+.1%}",
                "yes" if r.inside else "no",
            )
            for r in rows
        ],
    )


def holdout_errors_table(summary: dict[str, Any]) -> Table:
    def cells(e: dict[str, float] | None) -> tuple[str, ...]:
        return error_cells(Errors(**e) if e else None)

    return table(
        "Error of predictions of points that the fit had not seen",
        "by",
        *ERROR_COLUMNS,
        rows=[
            ("the cost model", *cells(summary["error"])),
            (
                (
                    f"the cost model, the machine's drift ({summary['drift'] - 1:+.1%} by the"
                    " sentinel) left in"
                ),
                *cells(summary["raw_error"]),
            ),
            (
                "the cost model, where the baseline has a rate",
                *cells(summary["error_where_baseline"]),
            ),
            ("baseline: one MFU for all of a stage", *cells(summary["constant_mfu_baseline"])),
        ],
    )


def estimate_table(title: str, e: Estimate) -> Table:
    rows = [
        ("one denoising step", duration(e.step_s)),
        *((f"  {stage}, whole video", duration(q)) for stage, q in e.stages.items()),
        ("whole video", duration(e.video_s)),
        ("minutes of video per GPU-hour", quantity(e.minutes_per_gpu_hour)),
        ("dollars per minute", quantity(e.usd_per_minute)),
        ("kWh per minute", quantity(e.kwh_per_minute)),
        ("fits memory", "unknown" if e.fits_memory is None else "yes" if e.fits_memory else "no"),
    ]
    return table(f"{title} ({e.provenance}, 90 % intervals)", "quantity", "#value", rows=rows)


def chain_table(rows: Iterable[Row]) -> Table:
    def number(v: float | None) -> str:
        return "–" if v is None else f"{v:,.0f}" if 1e4 <= abs(v) < 1e7 else f"{v:,.4g}"

    return table(
        "The pencil estimate, row by row (claimed | computed and corrected: counted)",
        "row",
        "quantity",
        "#printed",
        "#computed",
        "#corrected",
        "#calibrated",
        "unit",
        "agreement, note",
        rows=[
            (
                r.id,
                r.quantity,
                number(r.printed),
                number(r.computed),
                number(r.corrected),
                quantity(r.calibrated) if r.calibrated else "–",
                r.unit,
                "; ".join(t for t in (r.agreement, r.note) if t),
            )
            for r in rows
        ],
    )


def waterfall_table(bars: Iterable[Bar]) -> Table:
    return table(
        "Minutes of video per GPU-hour, factor by factor",
        "factor",
        "#times",
        "#minutes",
        "provenance",
        rows=[(b.factor, f"{b.multiplier:.3g}", f"{b.value:.3g}", b.provenance) for b in bars],
    )


def ablations_table(rows: list[Ablation]) -> Table:
    """The first columns of report.md's: the terminal is narrow."""
    return table(
        f"Recipes against {rows[0].baseline} (measured; * on the Pareto front; weights random:"
        " quality cannot tell)",
        "recipe",
        "speed-up (interval)",
        "#latents' relative L2",
        "#video's PSNR",
        "#video",
        rows=[
            (name, gain, l2, psnr, video)
            for name, gain, l2, _, psnr, _, video, *_ in ablation_rows(rows)
        ],
    )


def combinations_table(rows: list[Ablation]) -> Table | None:
    """Combinations beside the product of their parts; None where there is none."""
    combined = combination_rows(rows)
    return (
        table(
            "Combined (measured)",
            "recipe",
            "parts",
            "product of the parts",
            "together",
            "#together / product",
            rows=combined,
        )
        if combined
        else None
    )
