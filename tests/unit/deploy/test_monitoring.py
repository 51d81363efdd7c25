"""What is deployed to watch driftline: rules that fire when they should, and queries of metrics that there are."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from typer.main import get_command

from driftline.console import supervised_run
from driftline.console.exporting import ExporterCollector
from driftline.console.main import app as command_line
from driftline.console.supervisor import Supervisor
from driftline.consumers.metrics import RuntimeMetrics

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
RULE_TESTS = sorted((DEPLOY / "prometheus").glob("*_test.yml"))
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RUNBOOKS = sorted((DEPLOY / "runbooks").glob("*.md"))
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
NAME = re.compile(r"\bdriftline[:_][a-z0-9_:]+")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("amtool") is None,
    reason="promtool and amtool are not installed: run `deploy/setup.sh monitoring` as root",
)


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """The series that the code exports, by name, and those that the rules record."""
    registry = CollectorRegistry()
    RuntimeMetrics(registry, "renewals")
    registry.register(ExporterCollector())
    supervised_run._register(Supervisor(lambda slot: [], range(2), True, 1.0, {}), "renewals", registry)
    families = {name for family in registry.collect() for name in _series(family.name, family.type)}
    return families | set(re.findall(r"- record: (\S+)", RULES.read_text()))


def _series(name: str, kind: str) -> list[str]:
    return [name + suffix for suffix in SUFFIXES.get(kind, ("",))]


@pytest.mark.parametrize("path", [RULES, *DASHBOARDS], ids=lambda path: path.name)
def test_every_metric_that_is_asked_for_is_one_that_the_code_exports(path: Path, exported: set[str]) -> None:
    text = re.sub(r"#.*", "", path.read_text()) if path.suffix == ".yml" else path.read_text()
    named = set(NAME.findall(text))
    assert named
    assert named <= exported


def test_the_tests_of_the_rules_feed_them_metrics_that_there_are(exported: set[str]) -> None:
    series = re.findall(r"- series: '(driftline\w+)", "".join(path.read_text() for path in RULE_TESTS))
    assert set(series) <= exported


def test_every_alert_says_how_bad_it_is_what_it_is_and_what_to_do() -> None:
    for rule in RULES.read_text().split("- alert: ")[1:]:
        name = rule.split()[0]
        assert re.search(r"severity: (page|ticket)\n", rule), name
        assert re.search(r'summary: "', rule), name
        assert "App {{ $labels.app }}" in rule or name in ("DriftlineExporterDown", "DriftlineSeriesLeftOut")
        assert f'runbook_url: "{{{{ $externalLabels.runbooks }}}}/{name}.md"' in rule


def test_every_alert_has_a_runbook_a_test_and_a_name_of_its_own() -> None:
    tested = "".join(path.read_text() for path in RULE_TESTS)
    assert len(set(ALERTS)) == len(ALERTS) > 10
    assert {path.stem for path in RUNBOOKS} == set(ALERTS)
    assert all(re.search(rf"\b{name}\b", tested) for name in ALERTS)


@needs_promtool
def test_the_configuration_is_taken_by_the_tools_that_read_it() -> None:
    commands: list[list[str | Path]] = [
        ["promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml"],
        ["amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml"],
        ["promtool", "test", "rules", *RULE_TESTS],
    ]
    for command in commands:
        done = ran(*command)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_scrape_job_of_the_readme_is_taken_and_has_the_name_that_the_rules_ask_for(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```yaml\n(scrape_configs:\n.*?)```", (DEPLOY / "README.md").read_text(), re.S)
    discovery, anywhere = "kubernetes_sd_configs: [{role: pod}]", "static_configs: [{targets: [a]}]"
    assert discovery in snippet
    # Debian builds Prometheus without the discovery of Kubernetes.
    (tmp_path / "prometheus.yml").write_text(snippet.replace(discovery, anywhere))
    done = ran("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    (scrape,) = yaml.safe_load(snippet)["scrape_configs"]
    assert set(re.findall(r'up\{job="([^"]+)"', RULES.read_text())) == {scrape["job_name"]}
    named = [rule for rule in scrape["relabel_configs"] if rule.get("target_label") == "job"]
    exporter = yaml.safe_load_all((DEPLOY / "kubernetes" / "exporter.yaml").read_text())
    (deployment,) = [document for document in exporter if document["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
    (match,) = [re.fullmatch(rule["regex"], pod) for rule in named]
    assert match is not None
    assert match[1] == scrape["job_name"]


WEAKENED = {
    "too few pairs": (r">= 30", ">= 3"),
    "too many pairs": (r">= 30", ">= 300"),
    "nothing of few pairs": (r"< 30\n", "< 3\n"),
    "many pairs as few": (r"< 30\n", "<= 30\n"),
    "any verdict": (r'(\{verdict="diverged",mode!~"nightly\|incumbent"\}\)) == 1', r"\1 >= 0"),
    "a night as a candidate": (r'mode!~"nightly\|incumbent"', 'mode!~"incumbent"'),
    "an incumbent as a candidate": (r'mode!~"nightly\|incumbent"', 'mode!~"nightly"'),
    "a night for ever": (r"diverged_timestamp_seconds\) < 7 \* 86400", "diverged_timestamp_seconds) < 70 * 86400"),
    "an old night as the last": (r"\n +or time\(\) - max by \(app\) \(driftline_nightly_newest_.* 32 \* 3600", ""),
    "a night that ended too lately": (r"> 32 \* 3600", "> 30 * 3600"),
    "a night that ended too long ago": (r"> 32 \* 3600", "> 34 * 3600"),
    "what was always left out": (r"increase\((driftline_exporter_left_out_series_total)\[6h\]\)", r"\1"),
    "for ever": (r"< 7 \* 86400", "< 70 * 86400"),
    "a shorter night": (r"> 26 \* 3600", "> 24 * 3600"),
    "a longer night": (r"> 26 \* 3600", "> 28 * 3600"),
    "any mode": (r'(success_timestamp_seconds)\{mode="nightly"\}', r"\1"),
    "a replay by hand as a night": (r'(success_timestamp_seconds)\{mode="nightly"\}', r'\1{mode=~"nightly|forced"}'),
    "an incumbent as a night": (r'(success_timestamp_seconds)\{mode="nightly"\}', r'\1{mode=~"nightly|incumbent"}'),
    "no first rejection": (r"or 0 \* sum by \(app, boundary\) \(rate\(driftline_decisions_total\[1h\]\)\)", ""),
    "few decisions": (r"\[1h\]\)\) >= 50", "[1h])) >= 5"),
    "any lag": (r"> 1000", "> 0"),
    "a lag that shrinks": (
        r"deriv\(driftline_group_lag_records\[15m\]\)\) > 0",
        "deriv(driftline_group_lag_records[15m])) < 9e9",
    ),
    "a dead topic that stands": (r"offsets\[1h\]\)\) > 0", "offsets[1h])) >= 0"),
    "two of few": (r">= 3\n", ">= 1\n"),
    "four of many": (r"> 0\.05", "> 0.01"),
    "a runtime that commits nothing": (
        r"\n +or 0 \* sum by \(app\) \(rate\(driftline_refused_transactions_total\[10m\]\)\)",
        "",
    ),
    "a circuit half open": (r"_state\) == 2", "_state) >= 1"),
    "any spending": (r"\* 3600 > 10", "* 3600 > 1"),
    "no exporter at all": (r'\n +or absent\(up\{job="driftline-exporter"\}\)', ""),
    "a log that is away": (r"\n +or driftline_exporter_up == 0", ""),
}
"""Rules that are wrong by one thing: the tests of the rules must tell."""


@needs_promtool
@pytest.mark.parametrize("wrong", WEAKENED)
def test_a_rule_that_is_wrong_by_one_thing_fails_the_tests_of_the_rules(wrong: str, tmp_path: Path) -> None:
    pattern, by = WEAKENED[wrong]
    text, times = re.subn(pattern, by, RULES.read_text())
    assert times, f"nothing matches {pattern}"
    (tmp_path / "rules.yml").write_text(text)
    tests = [shutil.copy(path, tmp_path) for path in RULE_TESTS]
    assert ran("promtool", "check", "rules", tmp_path / "rules.yml").returncode == 0
    assert any(ran("promtool", "test", "rules", path).returncode for path in reversed(tests))  # the quick one first


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_is_short_and_names_three_commands_and_what_to_do(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert len(text.splitlines()) <= 40
    (block,) = re.findall(r"## Look\n\n```sh\n(.*?)```", text, flags=re.S)
    assert len(block.splitlines()) == 3
    assert re.search(r"## Do\n\n- ", text)


def runbook_commands() -> set[tuple[str, ...]]:
    found = set()
    for path in RUNBOOKS:
        for line in re.findall(r"(?m)^driftline .*|(?<=`)driftline [^`]*(?=`)", path.read_text()):
            found.add(tuple(shlex.split(line.split("  ")[0])[1:]))
    return found


def test_every_command_of_a_runbook_exists_with_its_options() -> None:
    commands = runbook_commands()
    assert len(commands) > 10
    for words in commands:
        command: Any = get_command(command_line)
        for word in words:
            command = getattr(command, "commands", {}).get(word, command)
        options = {option for parameter in command.params for option in parameter.opts}
        assert command.name == words[0] or command.name in words[:2], words
        assert {word for word in words if word.startswith("--")} <= options, words
        needed = [set(one.opts) for one in command.params if one.required and one.param_type_name == "option"]
        assert all(one & set(words) for one in needed), f"{words} lacks one of {needed}"


def test_dashboards_have_uids_of_their_own_and_ask_the_provisioned_data_source() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert {path.stem for path in DASHBOARDS} == {"overview", "app", "replays", "cost"}
    assert len({board["uid"] for board in boards}) == len(boards)
    (uid,) = {panel["datasource"]["uid"] for board in boards for panel in board["panels"] if "targets" in panel}
    provisioned = (DEPLOY / "grafana" / "provisioning" / "datasources" / "driftline.yml").read_text()
    assert f"uid: {uid}\n" in provisioned
    alerting = (DEPLOY / "grafana" / "provisioning" / "alerting" / "driftline.yml").read_text()
    assert f"datasourceUid: {uid}\n" in alerting


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_of_a_dashboard_say_what_they_show_and_lie_beside_each_other(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or (panel["description"] and panel["targets"])
