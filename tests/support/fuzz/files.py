"""Fuzzed files: YAML, presets with fields replaced, a result with one place damaged, a published
table."""

import contextlib
import csv
import functools
import json
import string
from pathlib import Path

import yaml
from hypothesis import strategies as st

from bench.calibrate.published.names import Unusable
from bench.calibrate.published.numbers import number_in
from bench.calibrate.published.table import NEEDED, USED_WHERE_PRESENT, read_table
from bench.calibrate.read import read_calibration
from bench.core.errors import EnvironmentFault, UserError, one_line
from bench.core.load import load
from bench.core.read_yaml import YamlError, read_yaml
from bench.report.documents import run_summary
from bench.report.result import read_result
from bench.report.tables import device, points
from bench.report.tables.ablations import ablations_table
from bench.report.tables.calibration import latency_table
from bench.report.tables.doctor import bandwidth_table, ceilings_table
from bench.results.manifest import read_manifest
from bench.results.readable import known_part
from bench.results.store import CALIBRATION, RECORDS, SAMPLES, SUITE, Store
from bench.studies.verify.bounds import check_bounds, check_times
from bench.studies.verify.inside import check_inside
from bench.studies.verify.timings import check_samples, check_timings
from support.fuzz.values import CHANGES, GONE, KEYS, PLACES, TEXT, VALUES, changed
from support.paths import ROOT
from support.records import point_record


def foreseen(call, *args):
    """Runs it; every mistake must be one of ours, in one line."""
    try:
        call(*args)
    except (UserError, EnvironmentFault, YamlError, Unusable) as error:
        said = one_line(str(error))
        assert said.strip()
        assert "\n" not in said


YAML_TEXTS = st.text(alphabet=string.printable + "\ud800\x85\u2028é", max_size=200)
REPLACED = st.dictionaries(KEYS, VALUES, max_size=3)


def yaml_text(folder: Path, text: str) -> None:
    foreseen(read_yaml, text)


def preset(kind: type, name: str, folder: Path, replaced: dict) -> None:
    """A preset with some of its fields replaced, as a file."""
    path = folder / "fuzz.yaml"
    data = _preset(kind, name) | replaced
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    foreseen(load, kind, str(path))


@functools.cache
def _preset(kind: type, name: str) -> dict:
    return load(kind, name).model_dump(mode="json", exclude={"name"})


POINT_PARTS = st.sampled_from(["model", "denoiser", "vae", "recipe", "width", "new"])
STORED_POINTS = st.tuples(st.lists(POINT_PARTS, min_size=1, max_size=4), VALUES)


def stored_point(folder: Path, case: tuple) -> None:
    """A record's point with a field of it replaced."""
    path, value = case
    record = json.loads(json.dumps(_point()))
    part = record
    for name in path[:-1]:
        part = part.get(name) if isinstance(part, dict) else None
        if not isinstance(part, dict):
            return
    part[path[-1]] = value
    with contextlib.suppress(ValueError):  # a broken point; anything else is a crash
        known_part(record, "x")


@functools.cache
def _point() -> dict:
    return point_record().point


FILES = (RECORDS, RECORDS, SAMPLES, SUITE, CALIBRATION, "manifest.json")  # records twice as often
DIRECTORIES = st.tuples(
    st.sampled_from(FILES),
    st.one_of(
        st.tuples(PLACES, CHANGES),
        st.tuples(st.integers(0, 10**6), st.integers(0, 50), st.binary(max_size=20)),
    ),
)
"""A file of a result; then a place in it and what stands there, or where its bytes are cut, how
many go and what comes instead."""


def directory(folder: Path, case: tuple) -> None:
    """A result with one place of one file damaged, read as the commands read it."""
    name, how = case
    files = _whole_result()
    for other, text in files.items():
        (folder / other).write_bytes(text)
    (folder / name).write_bytes(_damaged(files[name], how))
    foreseen(_tables, folder)
    foreseen(_verified, folder)
    foreseen(read_manifest, folder)
    foreseen(_resumed, folder)


@functools.cache
def _whole_result() -> dict[str, bytes]:
    """Of the committed ones: a calibration, its ceilings and three points, and a recipe beside its
    baseline."""
    (calibrated,) = (ROOT / "results/cpu").glob("*_calibrate-cpu")
    (ablations,) = (ROOT / "results/cpu").glob("*_ablations-cpu")
    files = {name: (calibrated / name).read_bytes() for name in dict.fromkeys(FILES)}
    beside = (ablations / RECORDS).read_bytes().splitlines(keepends=True)
    compared = [line for line in beside if json.loads(line)["against"]]
    records = files[RECORDS].splitlines(keepends=True)
    files[RECORDS] = b"".join([*records[:4], compared[0]])
    kept = {json.loads(line)["fingerprint"] for line in records[:4]}
    rounds = files[SAMPLES].splitlines(keepends=True)
    files[SAMPLES] = b"".join(r for r in rounds if json.loads(r)["fingerprint"] in kept)
    return files


def _damaged(raw: bytes, how: tuple) -> bytes:
    if len(how) == 3:
        start, gone, instead = how
        start %= len(raw)
        return raw[:start] + instead + raw[start + gone :]
    place, change = how
    documents = raw.splitlines() if raw.count(b"\n{") else [raw]
    at = place[0] % len(documents)
    document = changed(json.loads(documents[at]), place[1:], change)
    documents[at] = b"" if document is GONE else json.dumps(document).encode()
    return b"\n".join(documents) + b"\n"


def _tables(folder: Path) -> None:
    """What `run` and `report` show, but for the studies that no record changes."""
    result = read_result(folder)
    run_summary(folder, folder / "report.md", result.records, read_calibration(folder))
    for made in (
        points.points_table,
        points.work_table,
        points.cold_starts_table,
        device.memory_table,
        device.clocks_table,
        device.launches_table,
        device.attention_table,
        device.traffic_table,
    ):
        made(result.points)
    points.whole_videos_table(result.whole_videos)
    device.environment_table(result.environment)
    latency_table(result.fits)
    if result.ablations:
        ablations_table(result.ablations)
    if result.ceilings:
        ceilings_table(result.ceilings, result.gpu)
        bandwidth_table(result.ceilings)


def _verified(folder: Path) -> None:
    """What `verify` holds to each other, but for the counts and the fit, which take seconds."""
    records = read_result(folder).records
    for found in (check_timings, check_inside, check_times, check_bounds):
        list(found(records))
    list(check_samples(folder, records))


def _resumed(folder: Path) -> None:
    with Store(folder) as store:
        store.records()
        store.prior_samples("x")


CELLS = st.one_of(
    TEXT,
    st.text("0123456789_.,e-", max_size=8),
    st.from_regex(r"[-~ ≈]*[\d_.,' e+-]{0,40}(s|ms|min)?"),
)


def cell(folder: Path, text: str) -> None:
    foreseen(number_in, "latency_s", text)


MEASURED = ("Wan2.1-1.3B", "H100", "832", "480", "81", "50", "100", "denoise", "95.1")
GOOD = dict(zip(NEEDED, MEASURED, strict=True))
COLUMNS = st.sampled_from([*NEEDED, *USED_WHERE_PRESENT, "Model ", "other", ""])
TABLES = st.tuples(
    st.lists(st.dictionaries(COLUMNS, CELLS, max_size=4), max_size=3),
    st.sampled_from(",;\t|"),
    st.binary(max_size=8),
)
"""Rows by what is other than in a good one, what stands between the cells, what stands before the
header."""


def table(folder: Path, case: tuple) -> None:
    rows, delimiter, before = case
    columns = list(dict.fromkeys([*GOOD, *(name for row in rows for name in row)]))
    path = folder / "table.csv"
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        lines = csv.writer(file, delimiter=delimiter)
        lines.writerow(columns)
        lines.writerows([(GOOD | row).get(name, "") for name in columns] for row in rows)
    path.write_bytes(before + path.read_bytes())
    foreseen(read_table, path)
