"""A real browser for the pages.

Needs `pip install -e '.[browser]'` and a Chromium (Debian's `chromium`, or `playwright install
chromium`); tests skip without.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VIEWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]


def launched() -> Iterator[Any]:
    """A browser until the test module ends."""
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
