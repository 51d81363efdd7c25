"""From a proposal to the action that is compared, as the record's schema declares: `compare` and `scale`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftline.consumers.judging import Action, Proposal
from driftline.schemas import Contract, Shape, canonical_json


def action_of(shape: Shape, proposal: Proposal) -> Action:
    """The action of a proposal whose payload fits the shape."""
    fields = {field["name"]: field for field in shape.contract.latest["fields"]}
    compared = shape.compared(proposal.payload)
    features = {f"type={proposal.type}": 1.0}
    for name, value in compared.items():
        features.update(_features_of(f"{proposal.type}/{name}", value, fields[name]))
    return Action(proposal.type, compared, features)


def declared_features(contract: Contract) -> list[str]:
    """The features that a contract declares before any answer: its type, and each field with a scale."""
    scaled = [field["name"] for field in contract.latest["fields"] if "scale" in field]
    return [f"type={contract.name}", *(f"{contract.name}/{name}" for name in scaled)]


def answer_action(answer: str) -> Action:
    """The action of a recording: its normalised extracted answer."""
    return Action("answer", {"answer": answer}, {f"answer={answer}": 1.0})


def _features_of(name: str, value: Any, field: Mapping[str, Any]) -> dict[str, float]:
    """One-hot of the value, and the number on its declared scale."""
    features = {f"{name}={canonical_json(value)}": 1.0}
    scale = field.get("scale")
    if scale is not None and isinstance(value, (int, float)):
        low, high = scale
        features[name] = min(1.0, max(0.0, (value - low) / (high - low)))
    return features
