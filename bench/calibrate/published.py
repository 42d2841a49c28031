"""Fit a few rates to somebody else's table of whole videos.

    seconds = linear FLOPs / (linear_efficiency x peak) + attention FLOPs / (attention_efficiency x gain x peak)
            + VAE FLOPs / (vae_efficiency x peak) + elementwise bytes x unfused_share x kept / bandwidth
            + fixed_s + offload_s (rows that say that weights are offloaded)

peak, bandwidth: the datasheet's, so efficiencies are shares of it.  gain: fast_attention_gain for rows that say
FlashAttention-3 or cuDNN, else 1.  kept: 1 for rows that say that nothing was compiled, else fused_share.

A video's latency says less than a timed step, so a table bears few parameters.  Starting from one rate for both products,
from the linear rate alone, and from both rates, one more at a time is freed: the one that lowers the corrected Akaike
criterion most, until none does (never more than half the rows, nor than there are different rows less one, nor one that
runs into its bound); the best of the three ends is taken.  The others keep a stated value, and the range that is thought
possible for it goes into the intervals.  The bytes start at zero: in one model's sweep they grow with the linear FLOPs, and
belong to the linear rate; only where models of several widths are pooled can they be told from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from bench.calibrate.published_counts import CountCache, Counted, count_rows
from bench.calibrate.published_table import PublishedTable, Row
from bench.core.errors import UserError, nearest
from bench.core.load import load
from bench.core.spec import Gpu

MIN_ROWS = 4
DRAWS = 200
INTERVAL = (5.0, 95.0)        # percentiles: 90 %
SOFT_L1_SCALE = 0.1           # as bench.calibrate.fit: residuals of 10 % and more count linearly
RESIDUAL_FLOOR = 2e-3         # tables print three or four digits: a fit closer than that is no better
HOPPER = ("h100-sxm", "h100-pcie", "h100-nvl", "h200", "h20")
LINEAR, ATTENTION, VAE, ELEMENTWISE, FAST, UNFUSED, OFFLOADED, STAGES = range(8)


@dataclass(frozen=True)
class Parameter:
    """One number of the model: where it starts, how far it may go, and what it is held at when it is not free."""

    name: str
    unit: str
    bounds: tuple[float, float]
    start: float
    held: float
    """Its value while it is not free."""
    possible: tuple[float, float]
    """Within which that value is thought to lie: intervals draw from it."""
    why: str


def parameters_of(gpu: str) -> tuple[Parameter, ...]:
    """What is held, and why, for a kind of card."""
    share, seconds, ratio = "share of datasheet", "s", "ratio"
    hopper = gpu in HOPPER
    return (
        Parameter("linear_efficiency", share, (0.02, 1.0), 0.55, 0.55, (0.4, 0.7), "never held"),
        Parameter("attention_efficiency", share, (0.02, 1.0), 0.4, 0.37 if hopper else 0.6,
                  (0.3, 0.5) if hopper else (0.4, 0.75),
                  "FlashAttention-2 reaches 35 % of an H100 (arXiv 2407.08608) and up to 73 % of an A100 (arXiv 2307.08691)"),
        Parameter("vae_efficiency", share, (0.005, 1.0), 0.2, 0.2, (0.1, 0.4),
                  "CogVideoX 1.5's decoding: 52 s on an H20 (L0720's note) is 0.20 of the datasheet, 38 s on an L20 0.35"),
        Parameter("fixed_s", seconds, (1e-3, 1e3), 3.0, 0.0, (0.0, 0.0), "the table does not show one"),
        Parameter("fast_attention_gain", ratio, (1.0, 3.0), 1.8, 2.0 if hopper else 1.0,
                  (1.7, 2.3) if hopper else (0.8, 1.0),
                  "cuDNN over FA2: 1.7 to 2.3 on Hopper, 0.82 on an A100, 1.00 on an L40S (PR 48163 of transformers)"),
        Parameter("unfused_share", ratio, (1e-3, 5.0), 0.8, 0.0, (0.0, 0.0),
                  "elementwise traffic cannot be told from the linear rate"),
        Parameter("fused_share", ratio, (0.02, 1.0), 0.33, 1 / 3, (0.1, 0.6),
                  "assumed, from 0.1 to 0.6: three elementwise operators in a row become one"),
        Parameter("offload_s", seconds, (1e-3, 1e3), 20.0, 0.0, (0.0, 0.0), "the table does not show one"),
    )


@dataclass(frozen=True)
class Fitted:
    """A value for every parameter, and which of them were free."""

    theta: np.ndarray
    free: tuple[int, ...]
    cost: float
    converged: bool


class PublishedModel:
    """The cost model of one kind of card."""

    def __init__(self, gpu: Gpu):
        self.gpu = gpu
        self.parameters = parameters_of(gpu.name)
        self.names = [p.name for p in self.parameters]
        self.peak = gpu.peak_flops_per_s.get("bf16")
        self.bandwidth = gpu.bandwidth_bytes_per_s
        self.held = np.array([p.held for p in self.parameters])
        self.one_rate = np.where(np.arange(len(self.held)) == 1, np.nan, self.held)

    def features(self, row: Row, counted: Counted) -> np.ndarray:
        """(8,): seconds at the datasheet of linear, attention, VAE and elementwise work; then what the row says."""
        work = counted.forward * row.forwards + counted.text
        return np.array([
            (work.linear_flops + work.conv_flops) / self.peak, work.attention_flops / self.peak,
            counted.vae_flops / self.peak, work.elementwise_bytes / self.bandwidth if self.bandwidth else 0.0,
            row.fast_attention, row.unfused, row.offloaded, row.scope.per == "video" and row.scope.text,
        ])

    def seconds(self, x: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """x (n, 8), theta (8,) -> (n,)."""
        linear, attention, vae, fixed, gain, unfused, fused, offload = theta
        attention = linear if np.isnan(attention) else attention            # nan: one rate for both
        return (x[:, LINEAR] / linear + x[:, ATTENTION] / (attention * np.where(x[:, FAST] > 0, gain, 1.0))
                + x[:, VAE] / vae + x[:, ELEMENTWISE] * unfused * np.where(x[:, UNFUSED] > 0, 1.0, fused)
                + fixed * x[:, STAGES] + offload * x[:, OFFLOADED])

    def fit(self, x: np.ndarray, t: np.ndarray, free: Sequence[int], held: np.ndarray | None = None,
            start: np.ndarray | None = None) -> Fitted:
        """Robust relative least squares over the free parameters; logarithms, since all are positive."""
        chosen, theta = [self.parameters[i] for i in free], (self.held if held is None else held).copy()
        low, high = np.log([p.bounds for p in chosen]).T
        guess = np.log([p.start for p in chosen] if start is None else start[list(free)])

        def unpack(z: np.ndarray) -> np.ndarray:
            theta[list(free)] = np.exp(z)
            return theta

        result = least_squares(lambda z: np.log(self.seconds(x, unpack(z)) / t), np.clip(guess, low + 1e-6, high - 1e-6),
                               bounds=(low, high), loss="soft_l1", f_scale=SOFT_L1_SCALE)
        return Fitted(unpack(result.x).copy(), tuple(free), float(result.cost), result.status > 0)

    def select(self, x: np.ndarray, t: np.ndarray) -> Fitted:
        """Free one parameter after another, as the module says; from three starts, and the best end."""
        n, different = len(t), len(np.unique(np.round(x, 9), axis=0))
        most = max(1, min(n // 2, different - 1))
        ends = [self._forward(x, t, start, most, held) for start, held in
                (((0,), self.one_rate), ((0,), self.held), ((0, 1), self.held)) if len(start) <= most]
        return min(ends, key=lambda f: (any(self.at_bound(f, i) for i in f.free), _criterion(f, n)))

    def _forward(self, x: np.ndarray, t: np.ndarray, start: tuple[int, ...], most: int,
                 held: np.ndarray) -> Fitted:
        best, n = self.fit(x, t, start, held), len(t)
        while len(best.free) < most:
            further = [self.fit(x, t, (*best.free, i), held) for i in self._shown_by(x, best.free)]
            further = [f for f in further if _criterion(f, n) < _criterion(best, n)
                       and not any(self.at_bound(f, i) for i in f.free)]
            if not further:
                break
            best = min(further, key=lambda f: _criterion(f, n))
        return best

    def _shown_by(self, x: np.ndarray, free: tuple[int, ...]) -> list[int]:
        """Parameters that the rows could tell: not those of work that no row has, or of a flag that all share."""
        differs = {"fast_attention_gain": FAST, "fused_share": UNFUSED, "offload_s": OFFLOADED}
        shown = []
        for i, name in enumerate(self.names):
            column = x[:, differs[name]] if name in differs else None
            if (i in free or (column is not None and column.min() == column.max())
                    or (name == "vae_efficiency" and not x[:, VAE].any())
                    or (name == "fixed_s" and not x[:, STAGES].any())
                    or (name == "unfused_share" and not x[:, ELEMENTWISE].any())
                    or (name == "fused_share" and self.names.index("unfused_share") not in free)):
                continue
            shown.append(i)
        return shown

    def draws(self, x: np.ndarray, t: np.ndarray, fitted: Fitted, seed: int = 0) -> np.ndarray:
        """(DRAWS, 8): refits to residuals redrawn, inflated for the parameters spent, with the held ones drawn from what is
        possible for them."""
        rng = np.random.default_rng(seed)
        predicted = self.seconds(x, fitted.theta)
        residuals = np.log(t / predicted)
        spread = (residuals - residuals.mean()) * np.sqrt(len(t) / max(1, len(t) - len(fitted.free)))
        possible = np.array([p.possible for p in self.parameters])
        out = []
        for _ in range(DRAWS):
            held = np.where(np.isnan(fitted.theta), np.nan, rng.uniform(possible[:, 0], possible[:, 1]))
            out.append(self.fit(x, predicted * np.exp(rng.choice(spread, len(t))), fitted.free, held, fitted.theta).theta)
        return np.array(out)

    def at_bound(self, fitted: Fitted, i: int) -> bool:
        """Did a free parameter stop at an end of its range?"""
        low, high = self.parameters[i].bounds
        return i in fitted.free and bool(fitted.theta[i] <= low * 1.001 or fitted.theta[i] >= high * 0.999)


def _criterion(fitted: Fitted, n: int) -> float:
    """Akaike's, corrected for few rows (Hurvich and Tsai 1989)."""
    k = len(fitted.free)
    if n - k - 1 <= 0:
        return np.inf
    return n * np.log(max(2 * fitted.cost / n, RESIDUAL_FLOOR**2)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


@dataclass(frozen=True)
class Errors:
    """|predicted / measured - 1| over rows that took no part in the fit."""

    mean: float
    median: float
    worst: float
    n: int
    worst_row: str


def errors(predicted: np.ndarray, measured: np.ndarray, ids: Sequence[str]) -> Errors | None:
    """None where nothing was held out."""
    kept = np.isfinite(predicted)
    if not kept.any():
        return None
    e = np.where(kept, np.abs(predicted / measured - 1), -1.0)
    return Errors(float(e[kept].mean()), float(np.median(e[kept])), float(e.max()), int(kept.sum()), ids[int(e.argmax())])


def held_out(model: PublishedModel, x: np.ndarray, t: np.ndarray, groups: Sequence[object]) -> np.ndarray:
    """Each group's rows predicted by a fit without them, the choice of free parameters made again; nan where the rest has
    too few rows or lacks what the group needs."""
    out = np.full(len(t), np.nan)
    for group in dict.fromkeys(groups):
        out_of_it = np.array([g == group for g in groups])
        rest = ~out_of_it
        if rest.sum() < MIN_ROWS - 1:
            continue
        out[out_of_it] = model.seconds(x[out_of_it], model.select(x[rest], t[rest]).theta)
    return out


def constant_mfu(flop_seconds: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Each row from one utilisation, the geometric mean of the others'."""
    logs = np.log(flop_seconds / t)
    return flop_seconds / np.exp((logs.sum() - logs) / (len(t) - 1))


@dataclass(frozen=True, kw_only=True)
class PublishedFit:
    """All there is to say about one kind of card."""

    gpu: Gpu
    rows: tuple[Row, ...]
    measured: np.ndarray
    predicted: np.ndarray
    left_out: np.ndarray
    """Each row by a fit without it."""
    flops: np.ndarray
    model: PublishedModel
    fitted: Fitted
    draws: np.ndarray
    leave_one_out: Errors | None
    leave_one_model_out: Errors | None
    upward: Errors | None
    constant_mfu: Errors | None
    constant_mfu_value: float
    """The geometric mean over all rows."""

    def tied(self, i: int) -> bool:
        """Is it held to the linear rate: one rate for both?"""
        return bool(np.isnan(self.fitted.theta[i]))

    def interval(self, i: int) -> tuple[float, float, float]:
        """(value, low, high) of a parameter; the value lies within."""
        if self.tied(i):
            return self.interval(0)
        value = float(self.fitted.theta[i])
        low, high = np.percentile(self.draws[:, i], INTERVAL)
        return value, float(min(low, value)), float(max(high, value))


def fit_published(gpu: Gpu, rows: Sequence[Row], counted: Sequence[Counted], progress: Callable[[str], None]) -> PublishedFit:
    """Fit, and say how well it predicts what it has not seen.  At least MIN_ROWS rows."""
    assert len(rows) >= MIN_ROWS
    model = PublishedModel(gpu)
    x = np.stack([model.features(row, work) for row, work in zip(rows, counted, strict=True)])
    t, ids = np.array([row.latency_s for row in rows]), [row.id for row in rows]
    progress(f"fitting {len(rows)} rows of {gpu.name}")
    fitted = model.select(x, t)
    left_out = held_out(model, x, t, range(len(rows)))
    models = [row.model for row in rows]
    by_model = held_out(model, x, t, models) if len(set(models)) > 1 else np.full(len(t), np.nan)
    at_peak = x[:, [LINEAR, ATTENTION, VAE]].sum(axis=1)
    upward, small = np.full(len(t), np.nan), at_peak <= np.median(at_peak)
    if small.sum() >= MIN_ROWS - 1 and not small.all():
        upward[~small] = model.seconds(x[~small], model.select(x[small], t[small]).theta)
    return PublishedFit(
        gpu=gpu, rows=tuple(rows), measured=t, predicted=model.seconds(x, fitted.theta), left_out=left_out,
        flops=at_peak * model.peak, model=model, fitted=fitted, draws=model.draws(x, t, fitted),
        leave_one_out=errors(left_out, t, ids), leave_one_model_out=errors(by_model, t, ids), upward=errors(upward, t, ids),
        constant_mfu=errors(constant_mfu(at_peak, t), t, ids), constant_mfu_value=float(np.exp(np.log(at_peak / t).mean())),
    )


def fit_table(table: PublishedTable, kind: str | None, progress: Callable[[str], None]
              ) -> tuple[list[PublishedFit], dict[str, str]]:
    """Every kind of card with enough rows, most rows first, or `kind` alone; and why the others were not fitted.

    Raises UserError where none has enough, or where `kind` is in the table under no name."""
    rows: dict[str, list[Row]] = {}
    for row in table.rows:
        rows.setdefault(row.gpu, []).append(row)
    if kind is not None:
        found = kind.lower() if kind.lower() in rows else next(
            (config.split(" ")[0] for name, config in table.gpus.items() if name.lower() == kind.lower()), None)
        if found not in rows:
            raise UserError(f"--gpu {kind}: the table has usable rows of {', '.join(sorted(rows))}{nearest(kind, rows)}")
        rows = {found: rows[found]}
    fits, unfitted, cache = [], {}, CountCache()
    for name, of_kind in sorted(rows.items(), key=lambda item: -len(item[1])):
        gpu = load(Gpu, name)
        if len(of_kind) < MIN_ROWS:
            unfitted[name] = f"{len(of_kind)} usable rows; at least {MIN_ROWS} are needed"
        elif "bf16" not in gpu.peak_flops_per_s:
            unfitted[name] = "no bf16 rate in its datasheet"
        else:
            fits.append(fit_published(gpu, of_kind, count_rows(of_kind, cache, progress), progress))
    if not fits:
        skipped = f"; {len(table.skipped)} more rows cannot be used" if table.skipped else ""
        raise UserError(f"no GPU kind can be fitted: {'; '.join(f'{n}: {why}' for n, why in unfitted.items())}{skipped}")
    return fits, unfitted
