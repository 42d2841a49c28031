"""Answers in a process of its own, so that counting holds up no other request."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from bench.core.errors import EnvironmentFault
from bench.explore.whatif import Answers, Question


class Superseded(Exception):
    """A newer question came before this one was begun."""


class Worker:
    """The newest question goes first.

    A question that has not begun when the next one comes is dropped: on the page somebody moves a
    slider."""

    def __init__(self, results: Path):
        self.results = results
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._last: Future | None = None

    def ask(self, question: Question) -> dict[str, Any]:
        """Raises UserError, EnvironmentFault, Superseded."""
        from concurrent.futures.process import BrokenProcessPool

        with self._lock:
            if self._last is not None:
                self._last.cancel()
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1, multiprocessing.get_context("spawn"), _begin, (str(self.results),)
                )
            self._last = future = self._pool.submit(_answer, question)
        try:
            return future.result()
        except CancelledError:
            raise Superseded from None
        except BrokenProcessPool:
            with self._lock:
                self._pool = self._last = None
            raise EnvironmentFault(
                "the counting process died, for want of memory perhaps; ask again"
            ) from None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


_ANSWERS: Answers | None = None  # of the worker process


def _begin(results: str) -> None:
    global _ANSWERS
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    parent = multiprocessing.parent_process()
    if parent is not None:  # it dies with the server, however that dies

        def watch() -> None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(0)

        threading.Thread(target=watch, daemon=True).start()
    _ANSWERS = Answers(Path(results))


def _answer(question: Question) -> dict[str, Any]:
    assert _ANSWERS is not None
    return _ANSWERS.with_cards(question)
