"""`driftline approve`, `reject`, `tick` and `migrate cut-over` as typed, on an app born on a state machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftline.consumers import App
from driftline.consumers.models import LiteLLMProposer
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.contracts.app import state_machine_app
from driftline.log import KafkaReader, Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:.*using the `ReadOnly` qualifier:UserWarning"),
]

DRIFTLINE = Path(sys.executable).with_name("driftline")
ASKED = ["approve", "S7-1", "--expected-version", "3"]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def born(cluster: Settings, app_name: str) -> App:
    """An app whose log has been a state machine's from the first; it has not run yet."""
    app = replace(state_machine_app, name=app_name, effectors=())
    prepare(app, cluster)
    return app


@pytest.fixture
def start(cluster: Settings, born: App, tmp_path: Path) -> Iterator[Start]:
    """Starts `driftline` in a folder whose only app is the one that was born; what still runs at the end is ended."""
    (tmp_path / "driftline.toml").write_text(
        f'bootstrap_servers = "{cluster.bootstrap_servers}"\nregistry_url = "{cluster.registry_url}"\n'
        f'partitions = {cluster.partitions}\n[apps]\n{born.name} = "born:app"\n'
    )
    (tmp_path / "born.py").write_text(
        "from dataclasses import replace\nfrom driftline.examples.contracts.app import state_machine_app\n"
        f'app = replace(state_machine_app, name="{born.name}", effectors=())\n'
    )

    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        one = subprocess.Popen(
            [str(DRIFTLINE), *arguments],
            cwd=tmp_path,
            env={**os.environ, "DRIFTLINE_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(one)
        return one

    yield start
    for one in started:
        with one:
            one.kill()


def ended(started: subprocess.Popen[str], code: int) -> str:
    """All that a command said until it ended."""
    out, err = started.communicate(timeout=60)
    assert started.returncode == code, (started.args, out, err)
    return out + err


def runtime(app: App, settings: Settings) -> Runtime:
    return Runtime(app, settings, LiteLLMProposer(), lambda: datetime.now(UTC))


def written(app: App, settings: Settings) -> int:
    """How many records lie on the topics that commands write to."""
    spans = [KafkaReader(settings).span(topic) for topic in (app.topics.events, app.topics.control)]
    return sum(high - low for span in spans for low, high in span.ranges.values())


@pytest.mark.parametrize("every", ["0s", "-5s"])
def test_a_ticker_that_cannot_go_on_tells_nothing_at_all(
    cluster: Settings, born: App, start: Start, every: str
) -> None:
    assert "--every" in ended(start("tick", born.name, "--every", every), code=2)
    assert written(born, cluster) == 0


@pytest.mark.parametrize("by", ["", "driftline:demo/offer"])
@pytest.mark.parametrize(
    "command", [ASKED, ["reject", *ASKED[1:]], ["migrate", "cut-over", "born:app"]], ids=lambda words: words[0]
)
def test_who_asks_is_somebody_and_none_of_driftlines_own_sources(
    cluster: Settings, born: App, start: Start, command: list[str], by: str
) -> None:
    assert f"--by {by!r}" in ended(start(*command, "--by", by), code=2)
    assert written(born, cluster) == 0


def test_who_asks_for_a_workflow_that_nothing_has_happened_to_is_told_that_it_has_no_row(
    cluster: Settings, born: App, start: Start
) -> None:
    asking = start(*ASKED, "--by", "mara", "--wait-s", "50")
    runtime(born, cluster).run(stop=lambda: asking.poll() is not None)
    said = ended(asking, code=1)
    assert "there is no row of S7-1 yet; it would begin in the state init at version 0" in said
    assert "None" not in said


def test_the_cut_over_of_an_app_that_was_born_on_a_state_machine_says_that_there_is_nothing_to_do(
    cluster: Settings, born: App, start: Start
) -> None:
    runtime(born, cluster).run(until_end=True)
    before = written(born, cluster)
    said = ended(start("migrate", "cut-over", born.name, "--by", "mara"), code=0)
    assert f"{born.name} is on the state-machine spine since its first start: there is nothing to cut over" in said
    assert written(born, cluster) == before


def test_control_shows_the_spine_that_a_log_began_on_and_who_began_it(
    cluster: Settings, born: App, start: Start
) -> None:
    runtime(born, cluster).run(until_end=True)
    said = ended(start("control", born.name), code=0)
    assert f"{born.name}: on the state-machine spine, since {born.name}.control[0]@0 by " in said
    assert said.endswith(": the log's first start\n")
