"""What `--by` and `--every` may be, before anything is asked of a broker."""

from __future__ import annotations

import pytest

from driftline.console.spine_commands import check_by, tick
from driftline.consumers.sources import EFFECTOR, SPINE, TIMER, source_of
from driftline.schemas import UsageError


@pytest.mark.parametrize("by", ["mara", "mara@example.com", "crm", "driftline-ticker", "a driftline: person"])
def test_a_person_or_a_system_may_ask(by: str) -> None:
    assert check_by(by) == by


@pytest.mark.parametrize("by", ["", " ", "\t\n"])
def test_nobody_may_not_ask(by: str) -> None:
    with pytest.raises(UsageError, match="is nobody; name a person or a system"):
        check_by(by)


@pytest.mark.parametrize("name", ["offer", SPINE, TIMER, f"{EFFECTOR}/mail", ""])
def test_none_of_driftlines_own_sources_may_ask(name: str) -> None:
    with pytest.raises(UsageError, match="driftline: is kept for what driftline commits itself"):
        check_by(source_of("shop", name))


@pytest.mark.parametrize("every", ["0s", "0m", "0d", "-5s", "1", "soon"])
def test_a_tick_without_a_length_of_time_to_wait_is_refused(every: str) -> None:
    with pytest.raises(UsageError, match="--every"):
        tick("shop", every=every)
