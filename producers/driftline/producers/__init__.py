"""Putting facts on the log: a publisher for user code, and importers of what was decided elsewhere."""

from driftline.producers.delivery import Delivery
from driftline.producers.errors import DeliveryFailed, QueueFull
from driftline.producers.lines import LineForm, PublishSummary, publish_lines
from driftline.producers.publisher import Publisher
from driftline.producers.recordings import ImportSummary, JudgedLine, JudgeLine, import_recorded

__all__ = [
    "Delivery",
    "DeliveryFailed",
    "ImportSummary",
    "JudgeLine",
    "JudgedLine",
    "LineForm",
    "PublishSummary",
    "Publisher",
    "QueueFull",
    "import_recorded",
    "publish_lines",
]
