"""Whether a topic is decided to its end by the group as a whole, not only by this member."""

from __future__ import annotations

from driftline.log import GroupConsumer, KafkaReader, Span


def others_at_end(reader: KafkaReader, inbox: GroupConsumer, topic: str) -> bool:
    """Whether nothing is left to decide of the partitions that other members own, or nobody does just now.

    Raises:
        KafkaUnreachable: The broker does not answer.
    """
    ends = inbox.ends_of_others()
    if not ends:
        return True
    standing = inbox.standing(ends)
    left = {number: (standing[number].base, end) for number, end in ends.items()}
    places = (record.at for record in reader.read(Span(topic, left)))
    return all(standing[at.partition].is_finished(at.offset) for at in places)
