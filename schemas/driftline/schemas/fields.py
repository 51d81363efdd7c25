"""What the fields of logged records share: the base model, times in milliseconds, text quoted from a model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from driftline.schemas.times import to_utc_millis


class Logged(BaseModel):
    """A record of the log: cannot change, and carries no field that its `.avsc` does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def escape_surrogates(value: Any) -> Any:
    r"""A text with every lone surrogate written as `\ud800`, which in JSON still means the same.

    Models write lone surrogates; neither UTF-8 nor Avro can carry them. Anything else passes unchanged.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


UtcMillis = Annotated[datetime, AfterValidator(to_utc_millis)]
"""A time as Avro's timestamp-millis keeps it, so that a record read back equals the one written."""

Quoted = Annotated[str, BeforeValidator(escape_surrogates)]
"""Text that may come from a model."""
