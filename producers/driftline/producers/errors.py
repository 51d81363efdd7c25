"""Errors of publishing.

The tree::

    DriftlineError
    ├── QueueFull          the bounded queue stayed full: the brokers take less than is published
    └── DeliveryFailed     an event was not delivered; nothing says that it will be
"""

from __future__ import annotations

from driftline.schemas import DriftlineError


class QueueFull(DriftlineError):
    """The queue stayed full for as long as the publisher may wait; the event was not taken.

    Attributes:
        topic: Where the event should have gone.
    """

    exit_code = 3

    def __init__(self, topic: str, records_max: int, waited_s: float) -> None:
        super().__init__(
            f"{topic}: {records_max} events wait for delivery and none was delivered within {waited_s:g} s",
            "publish slower, or see whether the brokers are well",
        )
        self.topic = topic


class DeliveryFailed(DriftlineError):
    """Events were not delivered.

    Attributes:
        topic: Where they should have gone.
        event_id: `ce_id` of the first of them; empty when they were still waiting.
        count: How many.
        retryable: Whether publishing them again, with the same ids, can succeed.
    """

    exit_code = 3

    def __init__(self, message: str, topic: str, event_id: str = "", count: int = 1, retryable: bool = True) -> None:
        super().__init__(message, "publish them again with the same ids" if retryable else "")
        self.topic = topic
        self.event_id = event_id
        self.count = count
        self.retryable = retryable
