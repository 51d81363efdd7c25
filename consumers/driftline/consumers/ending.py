"""Whether a topic is decided to its end by the group as a whole, not only by this member."""

from __future__ import annotations

from driftline.log import GroupConsumer, KafkaReader, Span, Unfinished


def all_at_end(reader: KafkaReader, inbox: GroupConsumer, topic: str) -> bool:
    """Whether this member has read its partitions to where they end now, and nothing is left of the others'.

    Raises:
        KafkaUnreachable: The broker does not answer.
    """
    ends, read_to = inbox.ends(), inbox.read_to
    if any(read_to[number] < ends[number] for number in read_to):
        return False
    others = {number: end for number, end in ends.items() if number not in read_to}
    standing = {number: found or Unfinished(0, 0) for number, found in inbox.standing(others).items()}
    left = {number: (min(standing[number].base, end), end) for number, end in others.items()}
    places = (record.at for record in reader.read(Span(topic, left)))
    return all(standing[at.partition].is_finished(at.offset) for at in places)
