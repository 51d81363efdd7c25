"""The app of the races: a desk on the state-machine spine, where one row has many rivals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from driftline.consumers import App, Boundary, Fold, Machine, Prompt, Timer, Transition
from driftline.schemas import Event

OFFER = json.dumps({"type": "desk.Offered", "payload": {"text": "here you are"}})
ILLEGAL = json.dumps({"type": "desk.Asked", "payload": {"text": "what do you want?"}})
NUDGE_AFTER = timedelta(hours=1)
MACHINE = Machine(
    "init",
    ["closed"],
    [
        Transition("init", "desk.Asked", "open"),
        Transition("open", "desk.Offered", "offered"),
        Transition("offered", "timer:nudge", "nudged"),
        Transition("offered", "bump", "offered"),
        Transition("nudged", "bump", "nudged"),
        Transition("nudged", "desk.Asked", "open"),
        Transition("*", "approve", "closed"),
    ],
    [Timer("nudge", "offered", NUDGE_AFTER)],
)


def fold(row: Mapping[str, Any], event: Event) -> Mapping[str, Any]:
    """Chains what has moved the row, in order: no event can be missing, twice or elsewhere and give the same."""
    chained = hashlib.sha256(f"{row.get('trail', '')}{event.id}".encode()).hexdigest()[:16]
    return {**row, "seen": row.get("seen", 0) + 1, "trail": chained}


def make_desk(name: str) -> App:
    """The desk under a name."""
    boundary = Boundary("sell", ["desk.Asked"], Prompt("{{ row | tojson }}"), "acme/seller", ["desk.Offered"])
    facts, schemas = ["desk.Asked", "desk.Noted"], Path(__file__).parent / "schemas"
    return App(name, [boundary], schemas, facts, Fold(fold, "1"), "state-machine", machine=MACHINE)
