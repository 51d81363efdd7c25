"""An address where nobody answers: told within the time given, by every way to the log."""

from collections.abc import Callable

import pytest

from driftline.log import AppTopics, KafkaReader, Outgoing, Settings, Span, TopicAdmin, TransactionalWriter
from driftline.log.clients import REQUEST_TIMEOUT_S
from driftline.schemas import KafkaUnreachable

NOBODY = Settings(bootstrap_servers="127.0.0.1:1")
SOON_S = 0.3

WAYS: dict[str, Callable[[], object]] = {
    "span": lambda: KafkaReader(NOBODY, SOON_S).span("a.events"),
    "read": lambda: list(KafkaReader(NOBODY, SOON_S).read(Span("a.events", {0: (0, 1)}))),
    "read to latest": lambda: list(KafkaReader(NOBODY, SOON_S).read_to_latest("a.events", 0)),
    "list topics": lambda: TopicAdmin(NOBODY, SOON_S).partitions(),
    "make topics": lambda: TopicAdmin(NOBODY, SOON_S).ensure(AppTopics("a").specs(1)),
    "delete a group": lambda: TopicAdmin(NOBODY, SOON_S).delete_group("a"),
    "open a writer": lambda: TransactionalWriter(NOBODY, "a", open_timeout_s=SOON_S).open(),
    "commit": lambda: TransactionalWriter(NOBODY, "a", open_timeout_s=SOON_S).commit(
        [Outgoing("a.events", b"w", b"v", 1)]
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_wrong_address_is_told_with_its_mend(way: Callable[[], object]) -> None:
    with pytest.raises(KafkaUnreachable, match=r"127\.0\.0\.1:1.*driftline kafka start") as told:
        way()
    assert told.value.exit_code == 3


def test_without_a_time_given_it_is_told_within_a_quarter_of_a_minute() -> None:
    assert REQUEST_TIMEOUT_S <= 15
