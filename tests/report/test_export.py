"""export: flat tables that others' tools read, and a pack that is verified first."""

import csv
import json
import shutil
import tarfile

import pytest

from bench.report.export.columns import COLUMNS
from bench.results.store import RECORDS, point_records, read_records
from support.paths import ROOT


@pytest.fixture
def directory(measured):
    return measured[0]


def test_csv_has_a_row_for_each_timed_stage(directory, tmp_path, here):
    out = tmp_path / "all.csv"
    code, said, err = here("export", str(directory), "--to", "csv", "--out", str(out), "--json")
    assert code == 0, err
    rows = list(csv.DictReader(out.open()))
    records = point_records(read_records(directory))
    assert json.loads(said)["written"] == len(rows) == sum(len(r.timings) for r in records)
    assert list(rows[0]) == list(COLUMNS)
    first, record = rows[0], records[0]
    timing = record.timings[first["stage"]]
    assert float(first["median_s"]) == timing.median_s
    assert int(first["flops"]) / timing.median_s == float(first["achieved_flops_per_s"])
    assert first["card"] == ""  # a CPU has no UUID


def test_parquet_keeps_numbers_and_the_words_of_each_column(directory, tmp_path, here):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "all.parquet"
    assert here("export", str(directory), "--to", "parquet", "--out", str(out))[0] == 0
    read = parquet.read_table(out)
    assert read.column_names == list(COLUMNS)
    assert read.schema.field("median_s").metadata[b"doc"].startswith(b"measured: seconds")
    assert read.column("flops")[0].as_py() == read.to_pylist()[0]["flops"]


def test_latex_escapes_names(directory, tmp_path, here):
    out = tmp_path / "all.tex"
    assert here("export", str(directory), "--to", "latex", "--out", str(out))[0] == 0
    text = out.read_text()
    assert text.startswith(r"\begin{tabular}{llllrrrr}")
    assert r"denoise\_step" in text
    assert text.count(r"\\") == text.count("\n") - 5  # two of tabular, three rules


def test_a_pack_is_of_a_verified_result(directory, tmp_path, here):
    out = tmp_path / "mine.tar.gz"
    assert here("export", str(directory), "--to", "pack", "--out", str(out))[0] == 0
    with tarfile.open(out) as archive:
        names = {name.rpartition("/")[2] for name in archive.getnames()}
    assert {RECORDS, "manifest.json", "suite.json", "report.md"} <= names
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    text = (copy / RECORDS).read_text()
    (copy / RECORDS).write_text(text.replace('"tokens":', '"tokens":1', 1))
    code, _, err = here("export", str(copy), "--to", "pack", "--out", str(tmp_path / "x.tar.gz"))
    assert (code, err.count("\n")) == (2, 1)
    assert "ldt-bench verify" in err
    assert not (tmp_path / "x.tar.gz").exists()


def test_mistakes_are_one_line(directory, tmp_path, here):
    code, _, err = here("export", str(directory), "--to", "cvs")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean csv?" in err
    code, _, err = here("export", str(tmp_path), "--to", "csv")
    assert (code, err.count("\n")) == (2, 1)


def test_the_docs_have_every_column():
    text = (ROOT / "docs" / "export.md").read_text()
    for name, words in COLUMNS.items():
        assert f"| `{name}` | {words} |" in text


def test_the_version_is_said(here):
    code, out, _ = here("--version")
    assert (code, out.split()[0]) == (0, "ldt-bench")
