"""merge: any order, any number of times, the same bytes; what is unlike is refused."""

import json
import shutil
from itertools import permutations
from pathlib import Path

import pytest

from bench.core.errors import UserError
from bench.results.merge import merge
from bench.results.store import RECORDS, SAMPLES, SUITE, point_records, read_records, read_suite

FILES = (RECORDS, SAMPLES, SUITE)


@pytest.fixture
def parts(measured, tmp_path) -> list[Path]:
    """A measured result as three shards of its suite."""
    source, _ = measured
    lines = (source / RECORDS).read_text().splitlines(keepends=True)
    found = []
    for i, part in enumerate((lines[:3], [lines[0], *lines[3:4]], lines[4:])):
        folder = tmp_path / "cpu" / f"part-{i}"
        folder.mkdir(parents=True)
        (folder / RECORDS).write_text("".join(part))
        shutil.copy(source / SAMPLES, folder)
        suite = json.loads((source / SUITE).read_text())
        suite["shard"] = {"index": i + 1, "count": 3}
        (folder / SUITE).write_text(json.dumps(suite))
        found.append(folder)
    return found


def on_card(folder: Path, out: Path, card: str, **changes: str) -> Path:
    """The same result, of another card."""
    shutil.copytree(folder, out)
    lines = [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]
    for line in lines:
        line["environment"] |= {"device_uuid_hash": card, **changes}
    (out / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return out


def bytes_of(directory: Path) -> list[bytes]:
    return [(directory / name).read_bytes() for name in FILES]


def test_any_order_and_any_number_of_times_give_the_same_bytes(parts, tmp_path):
    made = [
        merge(list(order), tmp_path / f"merged-{i}") for i, order in enumerate(permutations(parts))
    ]
    first = bytes_of(made[0])
    assert all(bytes_of(directory) == first for directory in made)
    again = merge([made[0], parts[1], made[1]], tmp_path / "again")
    assert bytes_of(again) == first


def test_shards_of_a_suite_make_that_suite(parts, measured, tmp_path):
    merged = merge(parts, tmp_path / "merged")
    whole = read_suite(measured[0])
    assert read_suite(merged) == whole
    points = {r.fingerprint for r in point_records(read_records(measured[0]))}
    assert {r.fingerprint for r in point_records(read_records(merged))} == points


def test_a_point_of_two_cards_is_there_twice(measured, tmp_path):
    cards = [on_card(measured[0], tmp_path / card, card) for card in ("a", "b")]
    merged = merge(cards, tmp_path / "merged")
    points = point_records(read_records(merged))
    alone = point_records(read_records(measured[0]))
    assert len(points) == 2 * len(alone)
    assert {r.environment.device_uuid_hash for r in points} == {"a", "b"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device_name": "Another"}, "measured on Another"),
        ({"torch": "1.0"}, "torch"),
        ({"code_version": "other"}, "code_version"),
    ],
)
def test_what_is_unlike_is_refused_and_mixed_with_a_warning(
    measured, tmp_path, here, changes, said
):
    other = on_card(measured[0], tmp_path / "other", "b", **changes)
    with pytest.raises(UserError, match=said):
        merge([measured[0], other], tmp_path / "x")
    code, _, err = here("merge", str(measured[0]), str(other), "--out", str(tmp_path / "x"))
    assert (code, err.count("\n")) == (2, 1)
    both = ("merge", str(measured[0]), str(other), "--mix-environments")
    code, _, err = here(*both, "--out", str(tmp_path / "x"))
    assert code == 0, err
    assert "warning" in err


def test_a_calibration_of_two_cards_is_the_typical_ones(measured, tmp_path, here):
    """One card and the same at 0.7 of its speed: the second is named, and both fit as one."""
    first = on_card(measured[0], tmp_path / "a", "a")
    slow = on_card(measured[0], tmp_path / "b", "b")
    lines = [json.loads(line) for line in (slow / RECORDS).read_text().splitlines()]
    for line in lines:
        for timing in line.get("timings", {}).values():
            timing |= {
                name: [s / 0.7 for s in v] if isinstance(v, list) else v / 0.7
                for name, v in timing.items()
                if name.endswith("_s") and v is not None
            }
    (slow / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, err = here("merge", str(first), str(slow), "--out", str(tmp_path / "m"), "--json")
    assert code == 0, err
    said = json.loads(out)["cards"]["cards"]
    cards = {card["card"]: card["seconds_over_typical"]["value"] for card in said}
    assert cards["b"] / cards["a"] == pytest.approx(1 / 0.7, rel=1e-6)
    code, out, _ = here("cards", str(tmp_path / "m"))
    assert code == 1  # both are further than 10 % from the middle of the two
    assert "slower" in out
    code, out, err = here("calibrate", str(tmp_path / "m"), "--json")
    assert code == 0, err
    assert "further than 10% from the typical card" in err


def test_cards_says_why_nothing_is_compared(measured, tmp_path, here):
    one = on_card(measured[0], tmp_path / "one", "a", device="cuda")
    for directory, words in (
        (measured[0], "this result is of a CPU, which has no UUID"),
        (one, "this result is of one card alone"),
    ):
        code, out, err = here("cards", str(directory))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
