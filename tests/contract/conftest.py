"""Which model stands for which contract."""

from collections.abc import Mapping

import pytest
from hypothesis import settings
from pydantic import BaseModel

from driftline.schemas import (
    Contract,
    Contracts,
    Decision,
    DivergenceAlert,
    EnvironmentDriftAlert,
    MigrationAlert,
    ReplayCompleted,
)
from driftline.schemas.control import ControlSetting
from driftline.schemas.effects import EffectReported
from driftline.schemas.spine import (
    ClockTicked,
    TimerFired,
    TransitionAccepted,
    TransitionRejected,
    TransitionRequested,
)

settings.register_profile("driftline", deadline=None)  # No test fails because the machine is busy.
settings.load_profile("driftline")

MODELS: Mapping[str, type[BaseModel]] = {
    "driftline.Decision": Decision,
    "driftline.ReplayCompleted": ReplayCompleted,
    "driftline.DivergenceAlert": DivergenceAlert,
    "driftline.EnvironmentDriftAlert": EnvironmentDriftAlert,
    "driftline.MigrationAlert": MigrationAlert,
    "driftline.ControlSetting": ControlSetting,
    "driftline.EffectReported": EffectReported,
    "driftline.ClockTicked": ClockTicked,
    "driftline.TimerFired": TimerFired,
    "driftline.TransitionRequested": TransitionRequested,
    "driftline.TransitionAccepted": TransitionAccepted,
    "driftline.TransitionRejected": TransitionRejected,
}
OWN = Contracts.load()


@pytest.fixture(params=MODELS)
def modelled(request: pytest.FixtureRequest) -> tuple[type[BaseModel], Contract]:
    """Each model with its contract."""
    return MODELS[request.param], OWN[request.param]


@pytest.fixture(params=sorted(OWN))
def own(request: pytest.FixtureRequest) -> Contract:
    """Each of driftline's contracts."""
    return OWN[request.param]
