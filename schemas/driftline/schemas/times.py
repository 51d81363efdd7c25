"""Times of the log: UTC, milliseconds, always with a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def to_utc_millis(time: datetime) -> datetime:
    """The time in UTC, cut to the millisecond as Avro's timestamp-millis cuts it.

    Raises:
        ValueError: The time has no zone, or leaves the years 1 to 9999 in UTC.
    """
    if time.tzinfo is UTC and not time.microsecond % 1000:
        return time
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    try:
        utc = time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{time} is out of range in UTC") from error
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


@lru_cache(maxsize=1024)  # one event's time stands on all that it leads to
def format_time(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds.

    Raises:
        ValueError: The time has no zone.
    """
    return to_utc_millis(time).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """A time with a zone, in UTC, as precise as it was written (to the microsecond).

    Raises:
        ValueError: Not ISO 8601, without a zone, or out of range in UTC.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text} is out of range in UTC") from error


def epoch_ms(time: datetime) -> int:
    """Milliseconds since 1970, as Kafka stamps records; cut like `format_time`, so that stamp and header agree.

    Raises:
        ValueError: The time has no zone.
    """
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    return (time - EPOCH) // MILLISECOND


def from_epoch_ms(milliseconds: int) -> datetime:
    """The UTC time of a record's timestamp.

    Raises:
        OverflowError: Outside the years 1 to 9999.
    """
    return EPOCH + timedelta(milliseconds=milliseconds)
