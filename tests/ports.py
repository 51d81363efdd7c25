"""Ports of a test's own, for a service that is killed and is to come back to where it was."""

import random

from driftline.console.local.service import is_free

# Below those that the system hands out, to `free_port` and to every client that connects, and above well-known ones.
FIRST, LAST = 15_000, 32_000


def steady_port(count: int = 1) -> int:
    """A free port, the first of so many in a row, that nobody is likely to take while its service is down."""
    chosen = random.SystemRandom()
    while True:
        port = chosen.randint(FIRST, LAST)
        if all(is_free(port + number) for number in range(count)):
            return port
