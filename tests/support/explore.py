"""A measured result for the explore page, and questions to it."""

import json
from pathlib import Path

from bench.explore.whatif import Answers, Question

EVIL = "<script>alert(1)</script>"


def lines(results: Path) -> list[dict]:
    return [
        json.loads(line) for line in (results / "cpu/real/records.jsonl").read_text().splitlines()
    ]


def rewrite(results: Path, records: list, name: str = "cpu/real") -> None:
    (results / name).mkdir(parents=True, exist_ok=True)
    (results / name / "records.jsonl").write_text(
        "".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records)
    )


def evil(results: Path) -> None:
    """A result whose every string is a script."""

    def poison(value):
        return [poison(v) for v in value] if isinstance(value, list) else value

    records = [r for r in lines(results) if r["kind"] == "point"]
    for record in records:
        record |= {
            "model": EVIL,
            "workload": EVIL,
            "recipe": EVIL,
            "suite": EVIL,
            "reason": EVIL,
            "started_utc": EVIL,
        }
        record["environment"] |= {"gpu": EVIL, "device_name": EVIL}
    rewrite(results, records, "cpu/<img src=x onerror=alert(2)>")


def ask(**words) -> Question:
    return Question.of(
        {
            "calibration": "cpu/real",
            "model": "tiny",
            "width": "64",
            "height": "64",
            "seconds": "2",
            "fps": "8",
            "steps": "20",
            **words,
        }
    )


class InProcess:
    """Stands in for the worker process, whose start takes seconds."""

    def __init__(self, results: Path):
        self.answers = Answers(results)

    def ask(self, question: Question) -> dict:
        return self.answers.with_cards(question)

    def close(self) -> None:
        pass
