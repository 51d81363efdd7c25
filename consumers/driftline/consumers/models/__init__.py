"""Models: the LiteLLM proposer, `SteadyProposer` around it, and `recorded/…` and `sim/…`, which need no network."""

from driftline.consumers.models.breaker import Breaker, BreakerState
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.models.patience import CallLimits, Patience
from driftline.consumers.models.recorded import RecordedAnswers
from driftline.consumers.models.sim import SIM_VERSIONS
from driftline.consumers.models.steady import SteadyProposer

__all__ = [
    "SIM_VERSIONS",
    "Breaker",
    "BreakerState",
    "CallLimits",
    "LiteLLMProposer",
    "Patience",
    "RecordedAnswers",
    "SteadyProposer",
]
