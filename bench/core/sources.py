"""Where a source can be read: an address from the words that name it."""

import re

URL = re.compile(r"https?://[^\s;,)\"']+")
ARXIV = re.compile(r"arxiv[ :]*(\d{4}\.\d{4,5})", re.IGNORECASE)
THREAD = re.compile(r"(?:github )?([\w.-]+/[\w.-]+) (?:(PR)|issue) #?(\d+)", re.IGNORECASE)
FILE = re.compile(r"(?:github )?([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})(?: ([\w./-]+\.\w{1,5})\b)?")
FILE_FIRST = re.compile(r"([\w.-]+/[\w.-]+) ([\w./-]+\.\w{1,5})@([0-9a-f]{7,40})")
REPOSITORY = re.compile(r"github ([\w.-]+/[\w.-]+)")
SITE = re.compile(r"\b((?:[\w-]+\.)+(?:com|org|io|ai|dev|net|cn)/[\w./-]*[\w/-])")


def source_url(text: str) -> str | None:
    """A source's address: the first URL, paper, GitHub thread, file or repository that it names;
    None where it names none."""
    if match := URL.search(text):
        return match.group(0).rstrip(".")
    if match := ARXIV.search(text):
        return f"https://arxiv.org/abs/{match.group(1)}"
    if match := THREAD.search(text):
        kind = "pull" if match.group(2) else "issues"
        return f"https://github.com/{match.group(1)}/{kind}/{match.group(3)}"
    if match := FILE_FIRST.search(text):
        repository, path, commit = match.groups()
        return f"https://github.com/{repository}/blob/{commit}/{path}"
    if match := FILE.search(text):
        repository, commit, path = match.groups()
        kind = f"blob/{commit}/{path}" if path else f"tree/{commit}"
        return f"https://github.com/{repository}/{kind}"
    if match := REPOSITORY.search(text):
        return f"https://github.com/{match.group(1)}"
    if match := SITE.search(text):
        return f"https://{match.group(1)}"
    return None
