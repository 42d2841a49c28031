"""The contents of a report: what report.md and report.html both show of a result, made once."""

from collections.abc import Container
from typing import Any

from bench.calibrate.calibration import Fit
from bench.calibrate.cards import cards_of
from bench.calibrate.scaling.check import errors, measured_steps
from bench.report.figures.rates import rates_of
from bench.report.opening.answer import answer_of, doubt_of
from bench.report.opening.sections import CARRIES, lead, sections
from bench.report.result import Result
from bench.report.tables.ablations import ablations_table, combinations_table, panel_table
from bench.report.tables.calibration import (
    carrying_tables,
    errors_table,
    latency_table,
    predictions_table,
)
from bench.report.tables.claims import claims_table
from bench.report.tables.device import (
    attention_table,
    clocks_table,
    environment_table,
    gaps,
    launches_table,
    memory_gaps,
    memory_table,
    no_replays,
    traffic_table,
)
from bench.report.tables.doctor import bandwidth_table, cards_table, ceilings_table, gemm_ceiling
from bench.report.tables.forecasts import (
    group_ceilings_table,
    kept_table,
    steps_errors_table,
    steps_on_ranks_table,
)
from bench.report.tables.pencil import headline_swings_table, waterfall_table
from bench.report.tables.points import (
    cold_starts_table,
    points_table,
    rates_table,
    whole_videos_table,
    work_table,
)
from bench.report.tables.table import Table, quantity
from bench.results.store import group_ceilings

CPU_MEMORY = (
    "On a CPU the measured figure is the peak resident memory of the process, which includes Python"
    " and PyTorch; on CUDA it is by stage."
)
GPU_MEMORY = (
    "Activations are the peak allocated minus weights and inputs; the device's use includes the"
    " CUDA context and other processes."
)


def contents(result: Result, pictures: Container[str]) -> dict[str, Any]:
    """The variables of both templates.  pictures: names of the figures that were drawn."""
    points, tables = result.points, report_tables(result)
    on_cpu = result.environment.device == "cpu"
    shown, left_out = sections(result, tables, pictures)
    return {
        "result": result,
        "environment": result.environment,
        "headline": result.headline,
        "answer": answer_of(result),
        "doubt": doubt_of(result),
        "lead": lead(result, pictures),
        "sections": shown,
        "left_out": left_out,
        "on_cpu": on_cpu,
        "memory_words": CPU_MEMORY if on_cpu else GPU_MEMORY,
        "tables": tables,
        "fits": [fit_tables(fit, result) for fit in result.fits],
        "groups": [
            {"collectives": group_ceilings_table(record), "kept": kept_table(record)}
            for record in group_ceilings(result.records).values()
        ],
        "gaps": gaps(points),
        "memory_gaps": memory_gaps(points),
        "no_replays": no_replays(points),
        "gemm_ceiling": gemm_ceiling(result.ceilings) if result.ceilings else None,
        "quantity": quantity,
    }


def report_tables(result: Result) -> dict[str, Table]:
    """Each table by the name that the templates call it by."""
    points, rows = result.points, result.ablations
    tables = {
        "waterfall": waterfall_table(result.bars),
        "latency": latency_table(result.fits),
        "points": points_table(points),
        "work": work_table(points),
        "whole_videos": whole_videos_table(result.whole_videos),
        "cold_starts": cold_starts_table(points),
        "memory": memory_table(points),
        "clocks": clocks_table(points),
        "launches": launches_table(points),
        "attention": attention_table(points),
        "traffic": traffic_table(points),
        "environment": environment_table(result.environment),
    }
    if result.judges_claims:
        tables["claims"] = claims_table(result.claims)
    if result.swings:
        tables["movers"] = headline_swings_table(result.swings)
    if len(rates_of(result)[1]) > 1:
        tables["rates"] = rates_table(*rates_of(result))
    if rows:
        tables["ablations"] = ablations_table(rows)
        tables["combinations"] = combinations_table(rows)
        tables["panel"] = panel_table(rows, result.environment.device)
    if result.ceilings:
        tables["ceilings"] = ceilings_table(result.ceilings, result.gpu)
        tables["bandwidth"] = bandwidth_table(result.ceilings)
    if steps := measured_steps(points):
        tables["steps_on_ranks"] = steps_on_ranks_table(steps)
        tables["steps_errors"] = steps_errors_table(errors(steps))
    compared = cards_of(result.records)
    if compared.cards:
        tables["cards"] = cards_table(compared, result.records)
    return tables


def fit_tables(fit: Fit, result: Result) -> dict[str, Any]:
    few, rest = carrying_tables(fit, result.carried(fit), CARRIES)
    return {
        "title": fit.title,
        "parameters": few,
        "other_parameters": rest,
        "errors": errors_table(fit),
        "predictions": predictions_table(fit),
    }
