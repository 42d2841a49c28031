"""doctor: this card beside the others whose ceilings lie here."""

import pytest

from bench.measure.timing.sampling import summarise
from bench.report.tables.doctor import others_table
from bench.results.records import Probe
from bench.results.store import Store
from bench.studies.acceptance.others import reached_by_others, slower_than_others
from support.records import ceilings_record


def write(root, name: str, card: str | None, gemm_s: float) -> None:
    timing = summarise([gemm_s] * 3, [], "converged", True)
    shape = {"m": 1, "n": 1, "k": 1}
    gemm = Probe(
        kind="gemm", dtype="bf16", backend=None, shape=shape, flops=100, bytes_moved=None,
        timing=timing,
    )  # fmt: skip
    record = ceilings_record()
    environment = record.environment.model_copy(update={"device_uuid_hash": card})
    with Store(root / "h100-sxm" / name) as store:
        store.append_record(
            record.model_copy(update={"probes": [gemm], "environment": environment})
        )


@pytest.fixture
def others(tmp_path):
    write(tmp_path, "1", "a", 2.0)
    write(tmp_path, "2", "a", 1.0)  # the newer of the same card
    write(tmp_path, "3", "b", 1.0)
    write(tmp_path, "4", "own", 1.0)
    write(tmp_path, "5", None, 1.0)  # an older result, that names no card
    broken = tmp_path / "h100-sxm" / "6"
    broken.mkdir()
    (broken / "records.jsonl").write_text("no record\n")
    return reached_by_others(tmp_path, "h100-sxm", "own")


def test_the_newest_ceilings_of_each_other_card(others):
    assert [(o.card, o.gemm_flops_per_s, o.result) for o in others] == [
        ("a", 100.0, "2"),
        ("b", 100.0, "3"),
    ]


def test_a_card_far_below_the_others_is_named(others):
    slow = {"gemm": {"flops_per_s": 80.0}, "copy_bytes_per_s": 1.0}
    assert slower_than_others(slow, others) == ["GEMM 20% below the median of 2 other cards here"]
    assert slower_than_others({"gemm": {"flops_per_s": 95.0}}, others) == []
    assert slower_than_others({}, others) == []
    shown = others_table(slow, others)
    assert [row[0] for row in shown.texts] == ["this card", "a", "b"]
