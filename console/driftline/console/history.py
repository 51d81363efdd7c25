"""Telling from where on a topic there is history: what came before was deleted, by retention or by hand."""

from __future__ import annotations

from collections.abc import Mapping

from driftline.console.common import err
from driftline.log import LogReader
from driftline.replay.segment import Selection, deleted_below, span_of


def tell_history(topic: str, history_from: Mapping[int, int]) -> None:
    """Say on stderr, for each partition, at which offset its history begins; nothing where nothing was deleted."""
    for partition, low in sorted(history_from.items()):
        err.print(f"{topic}[{partition}]: history begins at offset {low}, what came before is deleted")


def tell_history_of(reader: LogReader, topic: str, selection: Selection) -> None:
    """`tell_history` of a selection that is read without a segment.

    Raises:
        UsageError: Its offsets are not on the log (it says what the log holds).
    """
    tell_history(topic, deleted_below(reader, topic, span_of(reader, topic, selection)))
