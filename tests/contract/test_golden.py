"""Golden records: bytes written once by an earlier version of the code, and what they must say for ever.

New ones are added by `golden/add.py`, and by nothing else.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from driftline.schemas import Codec, Contract, Contracts, Decision, Registry, to_json_data
from driftline.schemas.evolution import breaks

GOLDEN = Path(__file__).parent / "golden"
OWN = Contracts.load()


@pytest.fixture(params=sorted(path.name for path in GOLDEN.glob("*.json")))
def golden(request: pytest.FixtureRequest) -> tuple[str, int, bytes, Any]:
    """Record name, version, bytes and value of each golden file."""
    record, version, _, _ = request.param.rsplit(".", 3)
    said = json.loads((GOLDEN / request.param).read_text(encoding="utf-8"))
    return record, int(version), bytes.fromhex(said["hex"]), said["value"]


def codec_of(contract: Contract) -> Codec:
    """A codec whose registry has given every version its own number as id."""
    codec = Codec(Registry("mock://"), Contracts([contract]))
    codec.registry.ensure("golden", contract)
    return codec


def only(found: Any, asked: Any) -> Any:
    """What was found, without the fields that later versions have added by default."""
    if isinstance(asked, dict):
        return {name: only(found[name], item) for name, item in asked.items()}
    if isinstance(asked, list):
        return [only(*pair) for pair in zip(found, asked, strict=True)]
    return found


def test_history_is_read_as_it_was_written(golden: tuple[str, int, bytes, Any]) -> None:
    record, version, data, value = golden
    decoded = codec_of(OWN[record]).decode(data)
    assert (decoded.name, decoded.schema_id) == (record, version)
    assert only(to_json_data(decoded.value), value) == value


def test_a_record_of_the_latest_version_has_its_bytes_unchanged(golden: tuple[str, int, bytes, Any]) -> None:
    record, version, data, _ = golden
    codec = codec_of(OWN[record])
    if version == len(OWN[record].versions):
        assert codec.encode("golden", record, codec.decode(data).value) == data


@pytest.mark.parametrize("slug", ["accepted", "escalated"])
def test_a_decision_that_was_exported_with_version_1_reads_and_is_written_as_it_was(slug: str) -> None:
    text = (GOLDEN / f"driftline.Decision.1.{slug}.json").read_text(encoding="utf-8")
    exported = Decision.model_validate_json(json.dumps(json.loads(text)["value"])).model_dump_json()
    assert json.loads(exported)["attempts"] == json.loads(text)["value"]["attempts"]
    assert Decision.model_validate_json(exported).model_dump_json() == exported


@pytest.mark.parametrize("record", sorted(OWN))
def test_every_version_of_every_contract_has_a_golden_record(record: str) -> None:
    for version in range(1, len(OWN[record].versions) + 1):
        assert list(GOLDEN.glob(f"{record}.{version}.*.json")), f"add one for {record} {version}: see golden/add.py"


@pytest.mark.parametrize("record", sorted(OWN))
def test_every_version_of_a_contract_reads_every_other_one(record: str) -> None:
    assert breaks(OWN[record]) == []
