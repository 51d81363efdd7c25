"""What a peer is given: the job as one JSON file, since it runs in an environment without driftline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.kit.app import DUE, POLICY, PROPOSAL, RENEWED, STREAM

from driftline.consumers import App
from driftline.log import Settings
from driftline.schemas import Registry
from driftline.schemas.names import DECISION


def job_of(app: App, settings: Settings, **extra: Any) -> dict[str, Any]:
    """The job of an app whose topics and subjects are prepared."""
    registry = Registry(settings.require_registry())
    topics = app.topics
    places = {DUE: topics.events, RENEWED: topics.events, DECISION: topics.decisions}
    contracts = {name: app.contracts.require(name) for name in places}
    schemas = {name: (registry.ensure(places[name], one), one.latest) for name, one in contracts.items()}
    return {
        "app": app.name,
        "bootstrap": settings.require_bootstrap(),
        "events": topics.events,
        "decisions": topics.decisions,
        "stream": STREAM,
        "reads": DUE,
        "proposes": RENEWED,
        "schemas": schemas,
        "prompt": app.boundaries[0].prompt.text,
        "policy": POLICY,
        "cap_pct": 30,
        "answer": PROPOSAL,
        **extra,
    }


def write_job(path: Path, app: App, settings: Settings, **extra: Any) -> Path:
    path.write_text(json.dumps(job_of(app, settings, **extra)))
    return path
