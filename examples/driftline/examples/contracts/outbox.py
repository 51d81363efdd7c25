"""Sending the contract that a person has approved: one file each in an outbox, named by the idempotency key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftline.consumers.effectors import EffectFailed
from driftline.schemas import Event, canonical_json

FOLDER_VARIABLE = "CONTRACTS_OUTBOX"
"""Environment variable with the path of the folder."""
FOLDER_DEFAULT = ".driftline/outbox"


def send_contract(event: Event, idempotency_key: str) -> Mapping[str, Any]:
    """Put an approved contract into the outbox, once for each key, however often it is called.

    A request that led anywhere else than to the end of the case sends nothing.

    Raises:
        EffectFailed: The folder cannot be written to; a later try may succeed.
    """
    if event.data["state_after"] != "closed":
        return {"sent": False}
    path = Path(os.environ.get(FOLDER_VARIABLE, FOLDER_DEFAULT), f"{idempotency_key}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        letter = canonical_json({"customer": event.workflow, "approved_by": event.data["by"]})
        path.write_text(letter, encoding="utf-8")
    except OSError as error:
        raise EffectFailed(f"the outbox: {error}", retryable=True) from error
    return {"sent": True}
