"""Add a golden record: what today's code writes, kept so that every later version of the code must still read it.

    .venv/bin/python tests/contract/golden/add.py driftline.Decision accepted < value.json

writes `driftline.Decision.<latest version>.accepted.json`. Review it, and commit it. A file that is there is never
written again: bytes on somebody's log do not change either. A test that fails on a golden file means that history
would be misread; mend the code, or add a version of the contract, and leave the file alone.
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from driftline.schemas import Codec, Contracts, Registry

HERE = Path(__file__).parent


def add(record: str, slug: str, value: Any) -> Path:
    """Encode a value given as JSON data and write it beside its bytes."""
    contract = Contracts.load()[record]
    version = len(contract.versions)
    path = HERE / f"{record}.{version}.{slug}.json"
    # An empty registry counts from 1 and is given every version in order: the schema id is the version.
    codec = Codec(Registry("mock://"), Contracts([contract]))
    data = codec.encode("golden", record, from_json(contract.parsed, value), prove=True)
    with path.open("x", encoding="utf-8") as file:
        json.dump({"hex": data.hex(), "value": value}, file, indent=2, ensure_ascii=False)
        file.write("\n")
    return path


def from_json(schema: Any, value: Any) -> Any:
    """JSON data as an Avro datum: the inverse of `to_json_data` for the types that our contracts use."""
    if isinstance(schema, list):
        return None if value is None else from_json(next(kind for kind in schema if kind != "null"), value)
    if isinstance(schema, dict) and schema.get("logicalType") == "timestamp-millis":
        return datetime.fromisoformat(value)
    if isinstance(schema, dict) and schema["type"] == "record":
        kinds = {field["name"]: field["type"] for field in schema["fields"]}
        return {name: from_json(kinds[name], item) for name, item in value.items()}
    if isinstance(schema, dict) and schema["type"] == "array":
        return [from_json(schema["items"], item) for item in value]
    return value


if __name__ == "__main__":
    sys.stdout.write(f"{add(sys.argv[1], sys.argv[2], json.load(sys.stdin))}\n")
