"""What a run has written so far."""

from pathlib import Path


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
