"""A watchdog: ends the process when a step of librdkafka's never returns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_HUNG = 75
"""EX_TEMPFAIL of sysexits.h: started again, the process goes on from what is committed."""
COMMIT_S_MAX = 25.0
"""A transaction that takes longer is taken for hung. Shorter than all deadlines within it together: where several
steps in a row run to theirs, to begin anew is faster."""


def end_process(what: str) -> None:
    """Say why and end at once: nothing that is not committed counts, and nothing else can be trusted to run."""
    os.write(2, f"driftline: {what} did not return; the process ends, start it again\n".encode())
    os._exit(EXIT_HUNG)


class Watchdog:
    """Calls `expire` when a block takes too long: `send_offsets_to_transaction` can hang for ever when a broker dies,
    whatever its timeout (librdkafka#5456).

    Args:
        limit_s: Of one block.
        expire: Told what did not return, in a thread of its own.
    """

    def __init__(self, limit_s: float = COMMIT_S_MAX, expire: Callable[[str], None] = end_process) -> None:
        self._limit_s = limit_s
        self._expire = expire

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """Watch over the block."""
        timer = threading.Timer(self._limit_s, self._expire, [what])
        timer.name = "driftline-watchdog"
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
