"""The doctor's look at Kafka: the brokers, the topics as they are, and what this principal may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from driftline.console.doctor_findings import Checked, Finding, counted, fail, ok, warn
from driftline.log import Settings, TopicSpec, TransactionalWriter
from driftline.log.clients import GROUP
from driftline.log.inspecting import LogInspector, TopicFound
from driftline.replay.alerting import TRANSACTIONAL_ID_PREFIX
from driftline.schemas import EnvironmentUnreachable, UsageError

OWNER = "driftline"
"""Of the topics that all apps share."""
RIGHTS = "rights"
NEVER = "-1"
REPLAY_READS = frozenset({"READ", "DESCRIBE"})
WRITES = frozenset({"READ", "WRITE", "DESCRIBE"})
AT_LEAST = ("max.message.bytes",)
"""Settings where more does no harm."""
PROBE = "doctor"
"""Last part of the transactional ids that are opened to see whether they are allowed: no slot has it."""
PROBE_TIMEOUT_S = 10.0


def broker(checked: Checked) -> Iterator[Finding]:
    """Whether somebody answers, and who."""
    settings = checked.settings
    found = LogInspector(settings).brokers()
    version = "of a version that this principal may not see" if found.version is None else f"Kafka {found.version}"
    answers = "1 broker answers" if found.count == 1 else f"{found.count} brokers answer"
    secured = f", {settings.client_protocol}" if settings.secured else ""
    yield ok(f"{answers} at {settings.require_bootstrap()}, {version}{secured}")


def topics(checked: Checked) -> Iterator[Finding]:
    """Whether each topic is there as driftline would make it."""
    inspector = LogInspector(checked.settings)
    missing: dict[str, list[str]] = {}
    for name, specs in checked.specs():
        found = inspector.topics([spec.name for spec in specs])
        unseen = [one for one, topic in found.items() if topic is not None and topic.partitions is None]
        gone = [one for one, topic in found.items() if topic is None]
        missing.setdefault(checked.setting_up(name), []).extend(gone)
        wrong = [*_counts(specs, found), *_configs(specs, found)]
        yield from wrong
        if unseen:
            yield warn(f"{name}: this principal may not see {', '.join(unseen)}", f"see what it lacks under {RIGHTS}")
        elif not (wrong or gone):
            yield ok(f"{name}: {len(specs)} topics are there, as they are to be")
    for mend, names in missing.items():
        if names:
            yield fail(f"missing: {counted(names, 'topic')}", mend)


def rights(checked: Checked) -> Iterator[Finding]:
    """Whether this principal may replay, which it must, and decide, which a principal of replays must not."""
    inspector = LogInspector(checked.settings)
    by_owner = {name: inspector.topics([spec.name for spec in specs]) for name, specs in checked.specs()}
    lacking = [*_lacking(by_owner.pop(OWNER), WRITES)]
    for found in by_owner.values():
        lacking += _lacking(found, REPLAY_READS)
    if not inspector.may_read_group(GROUP):
        lacking.append(f"READ on group {GROUP}")
    lacking += _transactional(checked.settings, f"{TRANSACTIONAL_ID_PREFIX}.{PROBE}")
    apps = " ".join(by_owner) or "APP"
    mend = f"let an administrator run `deploy/acl/replay-user.sh PRINCIPAL {apps}`"
    yield fail(f"may not replay: lacks {', '.join(lacking)}", mend) if lacking else ok("may replay")
    for name, found in by_owner.items():
        yield from _deciding(checked, inspector, name, found)


def _counts(specs: Sequence[TopicSpec], found: Mapping[str, TopicFound | None]) -> Iterator[Finding]:
    """Topics with another partition count than is configured; apart, where they do not even agree."""
    seen = {spec.name: topic.partitions for spec in specs if (topic := found[spec.name]) is not None}
    has = {name: partitions for name, partitions in seen.items() if partitions is not None}
    wrong = {spec.name: spec.partitions for spec in specs if has.get(spec.name, spec.partitions) != spec.partitions}
    if not wrong:
        return
    told = ", ".join(f"{name} has {has[name]}, not {wanted}" for name, wanted in wrong.items())
    shared = {has[spec.name] for spec in specs if spec.name in has and spec.partitions != 1}
    if len(shared) == 1 and 1 not in wrong.values():
        mend = f"set `partitions = {shared.pop()}` in driftline.toml"
    else:
        mend = f"delete {', '.join(wrong)} while nothing is on it, and make it anew with `driftline topics create`"
    yield fail(f"partition counts: {told}; the same workflow must lie on the same partition of each", mend)


def _configs(specs: Sequence[TopicSpec], found: Mapping[str, TopicFound | None]) -> Iterator[Finding]:
    for spec in specs:
        topic = found[spec.name]
        if topic is None or topic.partitions is None:
            continue  # told as missing, or among the rights
        if topic.config is None:
            yield warn(
                f"{spec.name}: this principal may not see its settings", "allow it DescribeConfigs on the topic"
            )
            continue
        config = topic.config
        wrong = {key: value for key, value in spec.config.items() if not _fits(key, value, config.get(key))}
        if wrong:
            told = ", ".join(f"{key} is {config.get(key)}, not {value}" for key, value in wrong.items())
            lost = "; its history will be deleted" if wrong.get("retention.ms") == NEVER else ""
            added = ",".join(f"{key}={value}" for key, value in wrong.items())
            mend = (
                f"run `kafka-configs.sh --alter --entity-type topics --entity-name {spec.name} --add-config {added}`"
            )
            yield fail(f"{spec.name}: {told}{lost}", mend)


def _fits(key: str, wanted: str, has: str | None) -> bool:
    if key in AT_LEAST and has is not None and has.isdigit():
        return int(has) >= int(wanted)
    return has == wanted


def _lacking(found: Mapping[str, TopicFound | None], wanted: frozenset[str]) -> Iterator[str]:
    for name, topic in found.items():
        missing = wanted - (wanted if topic is None else topic.may)
        if missing:
            yield f"{' and '.join(sorted(missing))} on {name}"


def _deciding(
    checked: Checked, inspector: LogInspector, name: str, found: Mapping[str, TopicFound | None]
) -> Iterator[Finding]:
    app = checked.apps[name]
    if app is None:
        return
    lacking = [*_lacking(found, WRITES)]
    if not inspector.may_read_group(app.group):
        lacking.append(f"READ on group {app.group}")
    lacking += _transactional(checked.settings, f"driftline.{app.name}.{PROBE}")
    if lacking:
        mend = f"if it is to run {name}, let an administrator run `deploy/acl/app-user.sh PRINCIPAL {app.name}`"
        yield warn(f"may not decide for {name}: lacks {', '.join(lacking)}", mend)
    else:
        yield ok(f"may decide for {name}")


def _transactional(settings: Settings, transactional_id: str) -> list[str]:
    """Opens an id that nobody has: there is no request that only asks."""
    writer = TransactionalWriter(settings, transactional_id, open_timeout_s=PROBE_TIMEOUT_S)
    try:
        writer.open()
    except EnvironmentUnreachable:
        raise
    except UsageError:
        return [f"WRITE on transactional id {transactional_id}"]
    finally:
        writer.close()
    return []
