"""Where the checkout and the stored documents are."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"

BLOCK = re.compile(r"(?:<!-- file: (\S+) -->\n)?```(yaml|sh|python)\n(.*?)```", re.DOTALL)
OWN_CLASS = ROOT / "docs" / "add-a-class-of-your-own.md"


def write_files(page: Path, folder: Path) -> Path:
    """The files that a page shows, in a folder -> the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, kind, text in BLOCK.findall(page.read_text()):
        if file and kind != "sh":
            (folder / file).write_text(text)
    return folder
