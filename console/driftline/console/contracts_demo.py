"""`driftline demo --story contracts`: 90 days of each customer, day by day, on either spine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftline.consumers.app import App
    from driftline.consumers.machine import Machine
    from driftline.consumers.proposing import Proposer
    from driftline.consumers.rows import Row
    from driftline.consumers.runtime import Runtime
    from driftline.consumers.summary import RunSummary
    from driftline.log import Settings
    from driftline.log.tail import TopicTail
    from driftline.producers import Publisher
    from driftline.producers.contracts import Day
    from driftline.producers.ticking import Ticker
    from driftline.schemas import Event

MODULE = "driftline.examples.contracts.app"
APPS: Mapping[str, str] = {"event-log": f"{MODULE}:app", "state-machine": f"{MODULE}:state_machine_app"}
CUSTOMERS = 300
SEED = 7
TAIL_WAIT_S = 0.005


def contract_days(customers: int | None = None, telco: Path | None = None, seed: int = SEED) -> Sequence[Day]:
    """The facts of the story by days.

    Raises:
        BadInput: The telco file is malformed; names file, line and column.
    """
    from driftline.producers.contracts import days_of, synthetic_contracts, telco_contracts

    if telco is not None:
        return list(days_of(telco_contracts(telco, limit=customers)))
    return list(days_of(synthetic_contracts(CUSTOMERS if customers is None else customers, seed)))


def live(
    app: App,
    settings: Settings,
    days: Iterable[Day],
    proposer: Proposer,
    seed: int = SEED,
    on_day: Callable[[int, RunSummary], None] = lambda number, summary: None,
) -> RunSummary:
    """Let an app live through days: the facts of one, a tick at its end, and the next when all of that is decided.

    So log order is event-time order, as it is in production: what a day's facts lead to lies before the next day's.
    What lies on the log undecided is decided first. No other process of the app may run meanwhile.

    Raises:
        UsageError: The topics are not as they must be, or a rule or the fold of the app fails on an event.
        DeliveryFailed: A fact could not be published.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    from driftline.console.common import now
    from driftline.consumers.runtime import Runtime
    from driftline.producers import Publisher
    from driftline.producers.ticking import Ticker

    runtime = Runtime(app, settings, proposer, now, seed=seed)
    with (
        Publisher(app.name, app.schemas, settings, source="crm") as publisher,
        Ticker(app.name, settings) as ticker,
        closing(_Calendar(runtime, settings, iter(days), publisher, ticker, on_day)) as calendar,
    ):
        return runtime.run(until_end=True, stop=calendar.turn)


class _Calendar:
    """Asked by the runtime between its turns whether to stop, it never says so, but tells the next day when it may.

    The runtime's own thread asks: nothing is decided while a day is told, and the end of the log is looked for after
    it. So the run ends by itself when the last day is decided.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        days: Iterator[Day],
        publisher: Publisher,
        ticker: Ticker,
        on_day: Callable[[int, RunSummary], None],
    ) -> None:
        self._runtime, self._days, self._publisher, self._ticker = runtime, days, publisher, ticker
        self._on_day = on_day
        self._tails: list[TopicTail] = []
        self._seen = self._told = self._number = 0
        """Records that were undecided at the start or came since; those of them that were told; days told."""
        self._open(runtime.app, settings)

    def turn(self) -> bool:
        """Tell the next day if all there is has been decided; False: nobody is to stop."""
        if self._is_decided():
            day = next(self._days, None)
            if day is not None:
                self._tell(day)
        return False

    def close(self) -> None:
        """Let the connections go."""
        for tail in self._tails:
            tail.close()

    def _open(self, app: App, settings: Settings) -> None:
        from driftline.log import KafkaReader, Unfinished
        from driftline.log.group import group_standing
        from driftline.log.tail import TopicTail

        topic = app.topics.events
        numbers = sorted(KafkaReader(settings).span(topic).ranges)
        for number, standing in group_standing(settings, app.group, topic, numbers).items():
            tail, stands = TopicTail(settings, topic, number), standing or Unfinished(0, 0)
            self._tails.append(tail)
            self._seen += sum(not stands.is_finished(record.at.offset) for record in tail.open())

    def _is_decided(self) -> bool:
        """Whether everything on the log is: what was told, what boundaries committed, and timers that fired."""
        summary = self._runtime.summary
        if summary.events < self._told + summary.decisions["accepted"] + summary.decisions["escalated"]:
            return False
        self._look(0.0)
        # What was decided can be read: it is a matter of milliseconds until it has been fetched here too.
        while self._seen < summary.events:
            self._look(TAIL_WAIT_S)
        return self._seen == summary.events

    def _look(self, timeout_s: float) -> None:
        self._seen += sum(len(tail.poll(timeout_s)) for tail in self._tails)

    def _tell(self, day: Day) -> None:
        for fact in day.facts:
            self._publisher.publish_event(fact)
        self._publisher.flush()
        self._told += len(day.facts) + self._ticker.tick(day.end)
        self._number += 1
        self._on_day(self._number, self._runtime.summary)


def play(app: App, settings: Settings, days: Sequence[Day]) -> None:
    """Play the story and tell what became of the customers.

    Raises:
        DriftlineError: As `live`.
    """
    from driftline.console.common import out, progress_bar, say
    from driftline.console.run_command import print_summary
    from driftline.consumers.models.litellm_proposer import LiteLLMProposer
    from driftline.consumers.prepare import prepare

    prepare(app, settings)
    facts = sum(len(day.facts) for day in days)
    out.rule(f"{len(days)} days on the {app.spine} spine: {facts} facts", align="left")
    proposer = LiteLLMProposer()
    with progress_bar("loading LiteLLM", None):
        proposer.warm_up()
    with progress_bar("days", len(days)) as show:
        on_day = lambda number, summary: show(number, f"{summary.decisions.total()} decisions")  # noqa: E731
        summary = live(app, settings, days, proposer, on_day=on_day)
    print_summary(app.name, summary)
    rows = rows_of(app, settings)
    states = Counter(row.state or "none" for row in rows.values())
    say("customers: " + ", ".join(f"{count} {state}" for state, count in states.most_common()))
    _tell_unlawful(app, settings)
    _next_commands(app, rows)


def rows_of(app: App, settings: Settings) -> dict[str, Row]:
    """The rows on the state topic, by workflow.

    Raises:
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    from driftline.consumers.rows import Rows
    from driftline.log import KafkaReader
    from driftline.schemas import Codec, Registry

    reader, codec = KafkaReader(settings), Codec(Registry(settings.require_registry()), app.contracts)
    found: dict[str, Row] = {}
    for number in reader.span(app.topics.state).ranges:
        rows = Rows.restored(app.row_fold, reader.read_to_latest(app.topics.state, number), codec)
        found |= {key.decode(): row for key, row in rows.items()}
    return found


def events_of(app: App, settings: Settings) -> list[Event]:
    """Everything on the events topic: each workflow's in log order.

    Raises:
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    from driftline.log import KafkaReader, to_event
    from driftline.schemas import Codec, Registry

    reader, codec = KafkaReader(settings), Codec(Registry(settings.require_registry()), app.contracts)
    return [to_event(record, codec) for record in reader.read(reader.span(app.topics.events))]


def unlawful(machine: Machine, app: App, events: Iterable[Event]) -> list[Event]:
    """What boundaries committed although the table did not allow it in the state that the workflow was in by then.

    Not counted is a record that moves no state anywhere in the table: to leave a case as it is harms nothing.

    Args:
        machine: The table.
        app: Whose boundaries; its own spine may be the event log.
        events: Each workflow's in log order.
    """
    from driftline.consumers.machine_rows import trigger_of

    boundaries = {f"driftline:{app.name}/{boundary.name}" for boundary in app.boundaries}
    idle = _idle(machine)
    states: dict[str, str] = {}
    found = []
    for event in events:
        state = states.get(event.workflow, machine.initial)
        target = machine.target(state, trigger_of(event))
        if target is None and event.source in boundaries and event.record not in idle:
            found.append(event)
        states[event.workflow] = target or state
    return found


def _idle(machine: Machine) -> set[str]:
    """Triggers that move no state anywhere."""
    triggers = {trigger for moves in machine.table.values() for trigger in moves}
    moving = {trigger for state, moves in machine.table.items() for trigger in moves if moves[trigger] != state}
    return triggers - moving


def _tell_unlawful(app: App, settings: Settings) -> None:
    from driftline.console.common import say
    from driftline.consumers.app import load_app

    machine = load_app(APPS["state-machine"]).require_machine()
    found = unlawful(machine, app, events_of(app, settings))
    kinds = Counter(event.record.rpartition(".")[2] for event in found)
    told = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    say(f"committed out of turn, by the table of the state machine: {told or 'nothing'}")


def _next_commands(app: App, rows: Mapping[str, Row]) -> None:
    from driftline.console.common import say

    say("\nnext:", "bold")
    waiting = sorted(workflow for workflow, row in rows.items() if row.state == "human_required")
    if app.machine is not None:
        say(f"  .venv/bin/driftline state diagram {app.name}")
        for workflow in waiting[:1]:
            asked = f"--app {app.name} --expected-version {rows[workflow].version} --by you --wait-s 0"
            say(f"  .venv/bin/driftline approve {workflow} {asked}")
            say(f"  .venv/bin/driftline run {app.name} --until-end")
    say(f"  .venv/bin/driftline replay --app {app.name} --candidate sim/contracts-inflated --sample 300")
