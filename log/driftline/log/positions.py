"""A consumer's position when offsets finish out of order: the low watermark, and what is unfinished above it.

Kafka keeps one offset a partition. Where many keys are decided at once, later offsets finish before earlier ones; the
offset committed is that of the first unfinished one, and the metadata that travels with it names the others. The idea
is that of Confluent's Java parallel consumer.

Form: `v1:<base>:<payload>`; the payload is base64 (RFC 4648, URL-safe, no padding) of unsigned LEB128 varints: the
distance from base to the end of what was looked at, then the gaps between unfinished offsets.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

METADATA_BYTES_MAX = 4095
"""The broker takes 4,096 by default (`offset.metadata.max.bytes`) but loses a transaction that uses the last one."""
UNFINISHED_MAX = 1500
"""Of one partition; no more are taken up."""
PAYLOAD_BYTES_MAX = 3030
"""Of varints: in base64, with version and base before them, they stay below `METADATA_BYTES_MAX`."""
_VERSION = "v1"


@dataclass(frozen=True)
class Unfinished:
    """Where a partition stands.

    Attributes:
        base: The committed offset: the first that is not finished.
        end: One past the highest finished offset; `base` where nothing above it is finished.
        offsets: Unfinished offsets in `[base, end)`, ascending.
    """

    base: int
    end: int
    offsets: tuple[int, ...] = ()

    def is_finished(self, offset: int) -> bool:
        """Whether an offset was finished before the position was committed, and must not be decided again."""
        return offset < self.base or (offset < self.end and offset not in self._set)

    @cached_property
    def _set(self) -> frozenset[int]:
        return frozenset(self.offsets)

    def metadata(self) -> str:
        """The metadata to commit with `base`; empty where nothing above it is finished.

        Raises:
            ValueError: It would be longer than `METADATA_BYTES_MAX`: too much was let run ahead.
        """
        if self.end == self.base:
            return ""
        gaps = [after - before for before, after in zip((self.base, *self.offsets), self.offsets, strict=False)]
        raw = bytes(byte for number in (self.end - self.base, *gaps) for byte in _varint(number))
        text = f"{_VERSION}:{self.base}:{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"
        if len(text) > METADATA_BYTES_MAX:
            raise ValueError(f"{len(self.offsets)} unfinished offsets need {len(text)} bytes of metadata")
        return text


def read_metadata(metadata: str | None, committed: int) -> Unfinished:
    """What a committed offset and its metadata say.

    Metadata that is not ours, or whose base is not the committed offset (somebody reset it), is ignored: then all
    from the committed offset on is unfinished.
    """
    plain = Unfinished(committed, committed)
    version, _, rest = (metadata or "").partition(":")
    base, _, payload = rest.partition(":")
    if version != _VERSION or base != str(committed):
        return plain
    try:
        numbers = _numbers(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        length, *gaps = numbers
    except ValueError:
        return plain
    offsets, at = [], committed
    for gap in gaps:
        at += gap
        offsets.append(at)
    return Unfinished(committed, committed + length, tuple(offsets))


class Tracker:
    """What of one partition was taken up and what is finished. Pure: no clock, no broker.

    Args:
        start: What was finished before, as the committed position says.
    """

    def __init__(self, start: Unfinished) -> None:
        self._before_end = start.end
        self._before = dict.fromkeys(start.offsets)  # ascending; those that have not come up again
        self._running: dict[int, None] = {}  # ascending: offsets are taken up in order
        self._next = start.base
        self._finished_end = start.end

    def take(self, offset: int) -> bool:
        """Take an offset up, in ascending order; False when it is finished already and must be passed over.

        Raises:
            ValueError: It comes after a higher one.
        """
        if offset < self._next:
            raise ValueError(f"offset {offset} comes after {self._next - 1}")
        self._next = offset + 1
        while self._before and (first := next(iter(self._before))) < offset:
            del self._before[first]  # the log does not hold it any more
        if offset < self._before_end:
            if offset not in self._before:
                return False
            del self._before[offset]
        self._running[offset] = None
        return True

    def finish(self, offset: int) -> None:
        """Mark an offset that was taken up as finished.

        Raises:
            KeyError: It is not running.
        """
        del self._running[offset]
        self._finished_end = max(self._finished_end, offset + 1)

    @property
    def running(self) -> int:
        """How many offsets were taken up and are not finished."""
        return len(self._running)

    @property
    def unfinished(self) -> int:
        """How many offsets are unfinished: those that run, and those of the position before that will come up."""
        return len(self._running) + len(self._before)

    @property
    def room(self) -> int:
        """How many more offsets may be taken up until the metadata could outgrow what the broker keeps; at least 0.

        A gap takes two bytes, and a third one for each 16,384 offsets that the unfinished ones are spread over.
        """
        first = min(next(iter(self._running), self._next), next(iter(self._before), self._next))
        spread = max(self._next, self._before_end) - first
        gaps_max = (PAYLOAD_BYTES_MAX - 16 - spread // 16_384) // 2
        return max(0, min(UNFINISHED_MAX, gaps_max) - self.unfinished)

    @property
    def catching_up(self) -> bool:
        """Whether what comes next was looked at before: then taking it up adds nothing."""
        return self._next < self._before_end

    def position(self) -> Unfinished:
        """Where the partition stands: what may be committed now.

        Offsets that the log does not hold (control records, gaps) count as finished once a higher one was taken up.
        """
        base = min(next(iter(self._running), self._next), next(iter(self._before), self._next))
        end = max(base, self._finished_end)
        return Unfinished(base, end, tuple(o for o in (*self._running, *self._before) if o < end))


def _varint(number: int) -> Iterator[int]:
    while number > 0x7F:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number


def _numbers(raw: Iterable[int]) -> list[int]:
    found, number, shift = [], 0, 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            found.append(number)
            number, shift = 0, 0
    if shift:
        raise ValueError("the last number is cut off")
    return found
