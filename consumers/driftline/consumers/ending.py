"""Whether a topic is decided to its end by the group as a whole, not only by this member."""

from __future__ import annotations

from collections.abc import Collection

from driftline.log import GroupConsumer, KafkaReader, Span


def others_at_end(reader: KafkaReader, inbox: GroupConsumer, topic: str, owned: Collection[int]) -> bool:
    """Whether nothing is left to decide of the partitions that other members own, or nobody does just now.

    Raises:
        KafkaUnreachable: The broker does not answer.
    """
    ranges = {number: held for number, held in reader.span(topic).ranges.items() if number not in owned}
    if not ranges:
        return True
    standing = inbox.standing(ranges)
    left = {number: (standing[number].base, high) for number, (_, high) in ranges.items()}
    places = (record.at for record in reader.read(Span(topic, left)))
    return all(standing[at.partition].is_finished(at.offset) for at in places)
