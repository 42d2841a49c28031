"""Counts of a model at a workload, from the document of `count --json`."""

from collections.abc import Mapping
from typing import Any

from bench.core.units import si
from bench.report.numbers import in_units, percent
from bench.report.tables.table import Cell, Table, counted, number, table

FLOP = in_units("FLOP", 4)
Row = tuple[str, str | Cell]


def count_table(count: Mapping[str, Any]) -> Table:
    """FLOPs, bytes and parameters of each stage."""
    autoregressive = count.get("autoregressive")
    steps = "tokens in turn" if autoregressive else "steps"
    rows: list[Row] = [
        ("parameters of the denoiser", f"{count['params']:,}"),
        ("latents (T, H, W)", " x ".join(map(str, count["latent_shape"]))),
        ("tokens", f"{count['tokens']:,}"),
        *_forward_rows(count["forward"]),
        *(_token_rows(count, autoregressive) if autoregressive else [_step_row(count)]),
        ("text encoder", number(count["text_encode_flops"], FLOP)),
        ("given frames, encoded", number(count["condition_encode_flops"], FLOP)),
        ("VAE encode", number(count["vae_encode_flops"], FLOP)),
        ("VAE decode", number(count["vae_decode_flops"], FLOP)),
        (f"whole video, {count['steps']:,} {steps}", number(count["video_flops"], FLOP)),
        *_memory_rows(count),
    ]
    if not count["condition_encode_flops"]:
        rows = [row for row in rows if row[0] != "given frames, encoded"]
    title = f"{count['model']} on {count['workload']}"
    return table(title, ["quantity", counted("value")], rows)


def _forward_rows(forward: Mapping[str, Any]) -> list[Row]:
    by_class = {kind: flops for kind, flops in forward["by_class"].items() if flops}
    return [
        ("one forward", f"{FLOP(forward['flops'])} = {si(forward['macs'], 'MAC', 4)}"),
        *(
            (f"  {kind}", f"{FLOP(flops)}  {flops / forward['flops']:.1%}")
            for kind, flops in by_class.items()
        ),
    ]


def _step_row(count: Mapping[str, Any]) -> Row:
    return "one step", f"{FLOP(count['step_flops'])} ({count['forwards_per_step']} forward(s))"


def _token_rows(count: Mapping[str, Any], tokens: Mapping[str, Any]) -> list[Row]:
    """Of an auto-regressive model."""
    length, calls = f"{tokens['prefill_tokens']:,} tokens", f"{tokens['prefill_calls']:,} times"
    cache = f"over a cache of {tokens['cache_length']:,}"
    return [
        ("prefill", f"{FLOP(tokens['prefill_flops'])} for {length}, {calls}"),
        ("one token", f"{FLOP(count['step_flops'])} {cache}"),
    ]


def _memory_rows(count: Mapping[str, Any]) -> list[Row]:
    fused, unfused = (si(count["bytes"][f"modelled_{end}"], "B") for end in ("min", "max"))
    fits = ", ".join(gpu for gpu, fits in count["fits"].items() if fits)
    closed_form = "" if None in count["cross_check"].values() else " = closed form"
    return [
        ("bytes of a forward, modelled", f"{fused} fused to {unfused} unfused"),
        ("fits (weights and a step, modelled)", fits or "no card in configs/gpus"),
        ("cross-check", f"fvcore = torch{closed_form}"),
    ]


def module_table(count: Mapping[str, Any]) -> Table:
    """FLOPs of a forward by module: the denoiser's children, those of repeated blocks one by one
    with all blocks together.  The rows sum to the forward."""
    paths = {path: _within(path) for path in count["by_module"]}
    repeated = {parts[0] for parts in paths.values() if len(parts) > 1 and parts[1].isdigit()}
    sums: dict[str, int] = {}
    for path, parts in paths.items():
        if parts and len(parts) == (3 if parts[0] in repeated else 1):
            name = ".".join(part for part in parts if not part.isdigit())
            sums[name] = sums.get(name, 0) + sum(count["by_module"][path].values())
    rest = count["forward"]["flops"] - sum(sums.values())
    if rest:
        sums["in none of these"] = rest
    total = count["forward"]["flops"]
    return table(
        "By module",
        ["module", counted("FLOP"), counted("share")],
        [
            [name, number(flops, FLOP), number(flops / total, percent())]
            for name, flops in sums.items()
        ],
        note="all blocks together",
    )


def _within(path: str) -> list[str]:
    """A module's path in its denoiser; of a public one, in the expert that a forward runs; of a
    user's, in the class itself."""
    root, *parts = path.split(".")
    if parts[:1] == ["experts"]:
        return parts[2:]
    return parts[1:] if root == "OwnClassDenoiser" else parts


def rank_table(count: Mapping[str, Any]) -> Table:
    """`count --parallel`: one rank's denoising step."""
    agrees = "traced; the closed form agrees" if count["closed_form_agrees"] else "traced alone"
    return table(
        f"{count['model']} on {count['workload']}, {count['mesh_words']}: one rank's step",
        ["quantity", counted("value")],
        [
            ("ranks", f"{count['ranks']:,}"),
            ("tokens of all ranks", f"{count['tokens']:,}"),
            ("FLOPs of a rank", number(count["flops_per_rank"], FLOP)),
            ("bytes that a rank sends", si(count["bytes_sent_per_rank"], "B", 4)),
            ("activations sent", agrees),
        ],
    )


def sent_table(count: Mapping[str, Any]) -> Table:
    """By axis and collective."""
    columns = ["axis", "collective", "ranks", counted("calls"), counted("a call"), counted("sum")]
    by_shapes = any(sent["counter"] == "closed form" for sent in count["sent"])
    note = "weights: by their shapes, not traced" if by_shapes else ""
    return table(
        "What a rank sends in one step",
        columns,
        [
            [
                sent["axis"],
                sent["collective"],
                f"{sent['ranks']:,}",
                f"{sent['calls']:,}",
                si(sent["bytes_per_call"], "B", 4),
                si(sent["bytes"], "B", 4),
            ]
            for sent in count["sent"]
        ],
        note=note if count["sent"] else "nothing: each rank has samples of its own",
    )
