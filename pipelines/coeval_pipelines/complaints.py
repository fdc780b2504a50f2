"""What a service that waits for others says of it: each trouble once, and once that it is over. It knows the log."""

from __future__ import annotations

from typing import Any


class Complaints:
    """Says each trouble once, until all went well in between. Not thread-safe."""

    def __init__(self, log: Any, event: str) -> None:
        self._log = log
        self._event = event
        self._said = ""

    def say(self, error: Exception, *, trace: bool = False) -> None:
        """Something stands in the way: a warning, with a trace where asked, unless it was the last thing said."""
        if str(error) != self._said:
            self._said = str(error)
            self._log.warning(self._event, error=self._said, exc_info=trace)

    def well(self) -> None:
        """It worked: the next trouble is a new one, also where it has the same words."""
        if self._said:
            self._said = ""
            self._log.info("goes on", after=self._event)
