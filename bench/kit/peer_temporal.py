"""Temporal's Replayer over histories of its own kind: `python peer_temporal.py SPEC.json`, where temporalio is.

A history is one workflow that asks an activity for each decision, one after the other: 6 events a decision, as its
server writes them, put together by hand. The context is the activity's input, the answer its result. Histories lie
in memory, serialised as the server sends them; parsing them is timed, a server or a network is not there to be.
Prints one line of JSON for each runner: in its sandbox (the default) and without.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import workflow  # type: ignore[import-not-found]

with workflow.unsafe.imports_passed_through():
    from temporalio.api.history.v1 import History  # type: ignore[import-not-found]
    from temporalio.client import WorkflowHistory  # type: ignore[import-not-found]
    from temporalio.worker import Replayer, UnsandboxedWorkflowRunner  # type: ignore[import-not-found]
    from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner  # type: ignore[import-not-found]

QUEUE = {"name": "bench"}


@workflow.defn(name="Decisions")
class Decisions:
    """As many decisions as it is told, each asked of the activity `propose`."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, decisions: int, context: str) -> int:
        accepted = 0
        for _ in range(decisions):
            answer = await workflow.execute_activity(
                "propose", context, start_to_close_timeout=timedelta(seconds=60), result_type=str
            )
            accepted += json.loads(answer)["payload"]["discount_pct"] <= 30
        return accepted


class Written:
    """A history in the JSON of Temporal's own tools, event after event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, kind: str, **attributes: Any) -> int:
        number = len(self.events) + 1
        first, *rest = kind.lower().split("_")
        name = first + "".join(part.title() for part in rest) + "EventAttributes"
        told = {"eventId": str(number), "eventTime": "2026-07-01T00:00:00Z", "eventType": f"EVENT_TYPE_{kind}"}
        self.events.append({**told, name: attributes})
        return number

    def task(self) -> int:
        """The three events of a workflow task; the number of the last."""
        scheduled = self.add("WORKFLOW_TASK_SCHEDULED", taskQueue=QUEUE)
        started = self.add("WORKFLOW_TASK_STARTED", scheduledEventId=scheduled)
        return self.add("WORKFLOW_TASK_COMPLETED", scheduledEventId=scheduled, startedEventId=started)


def payloads(*values: Any) -> dict[str, Any]:
    def one(value: Any) -> dict[str, Any]:
        data = base64.b64encode(json.dumps(value).encode()).decode()
        return {"metadata": {"encoding": base64.b64encode(b"json/plain").decode()}, "data": data}

    return {"payloads": [one(value) for value in values]}


def history(run: str, decisions: int, context: str, answer: str) -> bytes:
    """One workflow's history, serialised."""
    written = Written()
    written.add(
        "WORKFLOW_EXECUTION_STARTED",
        workflowType={"name": "Decisions"},
        taskQueue=QUEUE,
        originalExecutionRunId=run,
        firstExecutionRunId=run,
        workflowId=run,
        attempt=1,
        input=payloads(decisions, context),
    )
    task = written.task()
    for number in range(1, decisions + 1):
        scheduled = written.add(
            "ACTIVITY_TASK_SCHEDULED",
            activityId=str(number),
            activityType={"name": "propose"},
            taskQueue=QUEUE,
            workflowTaskCompletedEventId=task,
            input=payloads(context),
        )
        started = written.add("ACTIVITY_TASK_STARTED", scheduledEventId=scheduled, attempt=1)
        ids = {"scheduledEventId": scheduled, "startedEventId": started}
        written.add("ACTIVITY_TASK_COMPLETED", result=payloads(answer), **ids)
        task = written.task()
    written.add("WORKFLOW_EXECUTION_COMPLETED", workflowTaskCompletedEventId=task, result=payloads(decisions))
    parsed = WorkflowHistory.from_json(run, {"events": written.events})
    data: bytes = History(events=parsed.events).SerializeToString()
    return data


async def replay(histories: list[tuple[str, bytes]], runner: Any) -> int:
    """Replay them all; how many events they hold.

    Raises:
        RuntimeError: A history does not replay.
    """
    events = 0

    async def iterate() -> AsyncIterator[Any]:
        nonlocal events
        for run, data in histories:
            parsed = WorkflowHistory(run, History.FromString(data).events)
            events += len(parsed.events)
            yield parsed

    replayer = Replayer(workflows=[Decisions], workflow_runner=runner)
    await replayer.replay_workflows(iterate())
    return events


def runs(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    size = spec["decisions_a_workflow"]
    model = history("0" * 36, size, spec["context"], spec["answer"])
    ids = [f"{number:036d}" for number in range(spec["decisions"] // size)]
    histories = [(run, model.replace(b"0" * 36, run.encode())) for run in ids]
    for name, runner in (("sandbox", SandboxedWorkflowRunner()), ("no sandbox", UnsandboxedWorkflowRunner())):
        began, began_cpu = time.perf_counter(), time.process_time()
        events = asyncio.run(replay(histories, runner))
        spent, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        yield {"runner": name, "records": len(ids) * size, "events": events, "seconds": spent, "cpu_s": cpu}


if __name__ == "__main__":
    for found in runs(json.loads(Path(sys.argv[1]).read_text())):
        print(json.dumps(found), flush=True)
    os._exit(0)  # the SDK's threads may outlive the interpreter, which then aborts
