"""`driftline demo`: the whole story in one command: publish, decide, replay, verdict, alert."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from driftline.console.replay_run import ReplayDone
    from driftline.consumers.app import App
    from driftline.log import Settings
    from driftline.schemas import Event

APP = "driftline.examples.renewals.app:app"
CUSTOMERS = 3000
SEED = 7
LAST_WEEK = "2026-09-22"
"""The simulated quarter runs 90 days from 2026-07-01."""
CANDIDATE = "sim/renewals-inflated"
BUNDLED_SEGMENT = "segment.parquet"
"""Beside the app's schemas: a week of its decisions, for machines that can have no Kafka."""
STEPS = 4


class Story(StrEnum):
    """Which example is played."""

    RENEWALS = "renewals"
    CONTRACTS = "contracts"


class SpineName(StrEnum):
    """On which spine the contracts run."""

    EVENT_LOG = "event-log"
    STATE_MACHINE = "state-machine"


def demo(
    customers: Annotated[
        int | None,
        typer.Option(min=100, help=f"Customers whose contracts come due; else {CUSTOMERS}, or all of --telco."),
    ] = None,
    telco: Annotated[
        Path | None, typer.Option(help="The IBM Telco Customer Churn CSV, in place of made-up customers.")
    ] = None,
    story: Annotated[
        Story, typer.Option(help="renewals: an upgrade and its verdict; contracts: 90 days of each customer.")
    ] = Story.RENEWALS,
    spine: Annotated[
        SpineName, typer.Option(help="Of the story contracts: what the truth about a customer is.")
    ] = SpineName.STATE_MACHINE,
) -> None:
    """Run the example app on a local Kafka, then replay its last week against a candidate model and prompt."""
    from driftline.console.common import say
    from driftline.console.local.errors import LocalServiceError
    from driftline.schemas import EnvironmentUnreachable

    if story is Story.CONTRACTS:
        _contracts(spine, customers, telco)
        return
    events = _events(customers, telco)
    try:
        settings = _services()
    except (LocalServiceError, EnvironmentUnreachable) as error:
        say(f"no Kafka to be had: {error}", "yellow")
        say("the demo goes on with its replay half, over a bundled segment of the same app", "yellow")
        _replay_bundled()
        return
    _publish_and_decide(settings, events)
    _headline(f"3/{STEPS} replay the last week against {CANDIDATE} and prompt v2")
    done = _replay(LAST_WEEK, CANDIDATE, "v2.md")
    _show_run(done)
    _control()
    _show_alerts(done)
    _next_commands(
        f"driftline replay --app renewals --candidate sim/renewals-reworded --from {LAST_WEEK}",
        "driftline show 'renewals.decisions[0]@0'",
        "driftline run --help",
    )


def _contracts(spine: SpineName, customers: int | None, telco: Path | None) -> None:
    """The other story: 90 days of each customer, on either spine."""
    from driftline.console.common import require_app
    from driftline.console.contracts_demo import APPS, contract_days, play

    days = contract_days(customers, telco)
    settings = _services()
    app = require_app(APPS[spine], settings)
    _reset(app, settings)
    play(app, settings, days)


def _events(customers: int | None, telco: Path | None) -> Sequence[Event]:
    """The quarter's facts; read before anything is started, since the file may be wrong."""
    from driftline.producers.renewals import synthetic_renewals, telco_renewals

    if telco is not None:
        return list(telco_renewals(telco, limit=customers))
    return list(synthetic_renewals(CUSTOMERS if customers is None else customers, SEED))


def _services() -> Settings:
    """The configured cluster, else a local Kafka and registry, started if they do not run."""
    from driftline.console.common import say
    from driftline.console.local import LocalKafka, LocalRegistry, default_home
    from driftline.log import TopicAdmin, load_settings

    settings = load_settings()
    if _is_external(settings):
        TopicAdmin(settings).partitions()
        say(f"using the Kafka at {settings.require_bootstrap()}")
        return settings
    home = default_home()
    kafka = LocalKafka(home, say=say).start(die_with_caller=False)
    registry = LocalRegistry(home, say=say).start(die_with_caller=False)
    say(f"Apache Kafka {kafka.version} at {kafka.bootstrap_servers}; Apicurio registry at {registry.url}")
    return load_settings()


def _is_external(settings: Settings) -> bool:
    """Whether the cluster is one of the user's, and not the local one."""
    from driftline.console.local import default_home, read_endpoints

    return settings.bootstrap_servers not in {None, read_endpoints(default_home()).get("bootstrap_servers")}


def _publish_and_decide(settings: Settings, events: Sequence[Event]) -> None:
    from driftline.console.common import now, progress_bar, require_app
    from driftline.console.run_command import print_summary
    from driftline.consumers.models.litellm_proposer import LiteLLMProposer
    from driftline.consumers.prepare import prepare
    from driftline.consumers.runtime import Runtime

    app = require_app(APP, settings)
    _headline(f"1/{STEPS} publish a simulated quarter: {len(events)} contracts come due")
    _reset(app, settings)
    prepare(app, settings)
    _publish(app, settings, events)
    _headline(f"2/{STEPS} decide: proposals, verdicts, rejects fed back, commits")
    proposer = LiteLLMProposer()
    with progress_bar("loading LiteLLM", None):
        proposer.warm_up()
    runtime = Runtime(app, settings, proposer, now, seed=SEED)
    with progress_bar("deciding", 2 * len(events)) as show:
        runtime.run(until_end=True, on_commit=lambda s: show(s.events, f"{s.rejections.total()} rejects fed back"))
    print_summary(app.name, runtime.summary)


def _reset(app: App, settings: Settings) -> None:
    """Begin anew on a local Kafka; on any other nothing is deleted.

    Raises:
        UsageError: The cluster is not the local one, and holds events of the app already.
    """
    from driftline.console.common import say
    from driftline.log import KafkaReader, TopicAdmin
    from driftline.schemas import UsageError

    admin = TopicAdmin(settings)
    if app.topics.events not in admin.partitions():
        return
    if _is_external(settings):
        if KafkaReader(settings).span(app.topics.events).offsets:
            raise UsageError(
                f"{app.topics.events} holds events already, and the demo deletes nothing on a cluster of yours",
                f"delete the topics {app.name}.* yourself, or unset DRIFTLINE_BOOTSTRAP_SERVERS",
            )
        return
    say(f"an earlier demo's topics {app.name}.* are deleted first")
    admin.delete([spec.name for spec in app.topics.specs(1)])
    admin.delete_group(app.group)


def _publish(app: App, settings: Settings, events: Sequence[Event]) -> None:
    from driftline.console.common import progress_bar, say
    from driftline.producers import Publisher

    with (
        progress_bar("publishing", len(events)) as show,
        Publisher(app.name, source="crm", schemas=app.schemas, settings=settings) as publisher,
    ):
        for number, event in enumerate(events, 1):
            publisher.publish_event(event)
            if number % 100 == 0:
                show(number)
    first, last = events[0].time, events[-1].time
    say(f"{len(events)} events on {app.topics.events}, from {first:%Y-%m-%d} to {last:%Y-%m-%d} in event time")


def _replay(start: str | None, candidate: str, prompt: str | None, segment: str | None = None) -> ReplayDone:
    from driftline.console.replay_command import selection_of
    from driftline.console.replay_run import ReplayRequest, run_replay
    from driftline.consumers.app import load_app
    from driftline.consumers.prompt import Prompt
    from driftline.replay.arms import Candidate
    from driftline.replay.harness import Limits

    folder = load_app(APP).schemas.parent
    return run_replay(
        ReplayRequest(
            app=APP,
            candidate=Candidate(candidate, Prompt.from_file(folder / "prompts" / prompt) if prompt else None),
            selection=selection_of(start, None),
            limits=Limits(locate=True),
            segment_file=None if segment is None else folder / segment,
        )
    )


def _replay_bundled() -> None:
    """The half that needs no broker; the app is named by its module, for folders without a driftline.toml."""
    from driftline.consumers.app import load_app

    _headline(f"replay a bundled week against {CANDIDATE} and prompt v2")
    _show_run(_replay(None, CANDIDATE, "v2.md", BUNDLED_SEGMENT))
    segment = load_app(APP).schemas.parent / BUNDLED_SEGMENT
    _next_commands(
        f"driftline replay --app {APP} --candidate sim/renewals-reworded --segment {_quoted(segment)}",
        "driftline sql 'FROM by_stream'",
        "driftline kafka start",
    )


def _quoted(path: Path) -> str:
    """A path as a shell takes it, seen from here where it lies below."""
    import shlex

    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _show_run(done: ReplayDone) -> None:
    from driftline.console.common import out
    from driftline.console.render import print_report

    print_report(out, done)


def _control() -> None:
    """The incumbent against its own log: a change that is none must raise no alarm."""
    from driftline.console.common import say

    report = _replay(LAST_WEEK, "sim/renewals", None).report
    differ = report["levels"]["action"]["mismatch"]
    say(
        f"\nthe control, sim/renewals against its own log: {report['verdict']}, e = {report['e_value']:.2g}, "
        f"although {differ:.0%} of its actions differ: that is its own noise"
    )


def _show_alerts(done: ReplayDone) -> None:
    from driftline.console.common import Log, say
    from driftline.console.log_commands import alert_line
    from driftline.log import load_settings
    from driftline.schemas import Contracts, to_json_data

    _headline(f"4/{STEPS} the alert, and the run as a database")
    log = Log(load_settings(), Contracts.load())
    for at in done.alerts.values():
        record = log.reader.read_one(at)
        if record is not None:
            say(alert_line({"at": str(at), **to_json_data(log.codec.decode(record.value).value)}))
    say(f"DuckDB: {done.database}\n  try: driftline sql --run {done.report['run_id']} 'FROM by_stream'")


def _next_commands(*commands: str) -> None:
    from driftline.console.common import say

    say("\nnext:", "bold")
    for command in commands:
        say(f"  .venv/bin/{command}")


def _headline(what: str) -> None:
    from driftline.console.common import out

    out.rule(what, align="left")
