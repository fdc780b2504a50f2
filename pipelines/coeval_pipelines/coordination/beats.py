"""Loads that nothing is written of yet, or any more, are seen to be worked on as long as their process lives."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from coeval_pipelines.control.loads import LoadBook
from coeval_pipelines.coordination.runs import now

IDLE_SECONDS = 60.0


@contextmanager
def beating(book: LoadBook, runs: Collection[int], seconds: float = IDLE_SECONDS) -> Iterator[None]:
    """Beat for loads in the context, every so many seconds, unless they are being written, which beats by itself."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(seconds):
            with suppress(SQLAlchemyError):  # what the load itself writes fails loudly enough
                book.beat_idle(runs, now())

    beater = threading.Thread(target=beat, daemon=True)
    beater.start()
    try:
        yield
    finally:
        over.set()
        beater.join()
