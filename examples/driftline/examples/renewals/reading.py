"""The renewals app with a tool: before it proposes, the model looks up how a customer has used the service.

A tool only reads. What it told stands on the decision, and a replay quotes it from there instead of asking again.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field

from driftline.consumers import Tool
from driftline.examples.renewals.app import app as renewals


class UsageQuestion(BaseModel):
    """Whose usage is asked for."""

    customer_id: str = Field(description="Id of the customer, as in the event.")


def look_up(asked: UsageQuestion) -> dict[str, Any]:
    """Logins and open tickets of the last 30 days; a made-up table in place of a warehouse."""
    drawn = zlib.crc32(asked.customer_id.encode())
    return {"logins_30d": drawn % 31, "open_tickets": drawn // 31 % 4}


usage = Tool("usage", "Logins and open tickets of a customer, last 30 days.", UsageQuestion, look_up)
app = replace(
    renewals,
    name="renewals-reading",
    boundaries=[replace(boundary, tools=[usage]) for boundary in renewals.boundaries],
)
