"""A CRM to write renewals into: one SQLite file, where the idempotency key is the primary key."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from driftline.consumers.effectors import EffectFailed
from driftline.schemas import Event, canonical_json, to_json_data

FILE_VARIABLE = "RENEWALS_CRM"
"""Environment variable with the path of the file."""
FILE_DEFAULT = ".driftline/crm.sqlite"

TABLE = """
CREATE TABLE IF NOT EXISTS renewals (
    idempotency_key TEXT PRIMARY KEY, customer TEXT NOT NULL, contract TEXT NOT NULL, terms TEXT NOT NULL
)
"""


def record_renewal(event: Event, idempotency_key: str) -> Mapping[str, Any]:
    """Write a customer's new contract into the CRM, once for each key, however often it is called.

    Raises:
        EffectFailed: The file is locked or cannot be opened; a later try may succeed.
    """
    path = Path(os.environ.get(FILE_VARIABLE, FILE_DEFAULT))
    contract = event.record.rpartition(".")[2]
    terms = canonical_json(to_json_data({name: value for name, value in event.data.items() if name != "rationale"}))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as crm, crm:
            crm.execute(TABLE)
            row = (idempotency_key, event.workflow, contract, terms)
            written = crm.execute("INSERT OR IGNORE INTO renewals VALUES (?, ?, ?, ?)", row).rowcount
    except (sqlite3.OperationalError, OSError) as error:
        raise EffectFailed(f"the CRM at {path}: {error}", retryable=True) from error
    return {"repeat": written == 0}
