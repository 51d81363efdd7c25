"""Models: the LiteLLM proposer, and the providers `recorded/…` and `sim/…` that need neither key nor network."""

from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.consumers.models.recorded import RecordedAnswers
from driftline.consumers.models.sim import SIM_VERSIONS

__all__ = ["SIM_VERSIONS", "LiteLLMProposer", "RecordedAnswers"]
