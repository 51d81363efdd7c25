"""What replay puts on `driftline.alerts`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from driftline.schemas.fields import Logged, UtcMillis


class StratumChange(Logged):
    """How one stratum (boundary × stream × level) changed."""

    boundary: str
    """Boundary name."""
    stream: str
    """Event type."""
    level: str
    """`verdict`, `action` or `state`."""
    events: int
    """Pairs that entered the test."""
    change: float | None
    """Mean paired change of the level, in [-1, 1]; null where the level has no direction."""
    interval_lo: float
    """Lower end of the confidence sequence at the stop."""
    interval_hi: float
    """Upper end of it."""
    e_value: float
    """Evidence against no change at the stop."""
    named: bool
    """Whether e-BH names the stratum at the run's alpha."""


class ArmRef(Logged):
    """One arm of a replay."""

    model: str
    """`provider/name`, or `log` for what was decided then."""
    prompt_hash: str
    """Hash of the prompt template."""
    verifier_version: str
    """Version of the verifier that judged the arm."""


class ReplayCompleted(Logged):
    """A replay came to its verdict."""

    kind: Literal["ReplayCompleted"] = "ReplayCompleted"
    """Discriminates the alert; the Avro record name on the wire."""
    run_id: str
    """Id of the run; its folder has that name."""
    app: str
    """App name."""
    mode: str
    """`forced`."""
    baseline: ArmRef
    """What the candidate was held against."""
    candidate: ArmRef
    """What was tried."""
    verdict: str
    """`diverged`, `equivalent` or `inconclusive`."""
    stopped_because: str
    """`alarm`, `equivalent`, `segment_ended`, `budget_ended` or `coverage`."""
    alpha: float
    """Bound on the probability of a false alarm."""
    delta: float
    """Half-width of the equivalence region."""
    events: int
    """Decisions in the segment."""
    compared: int
    """Pairs that entered the test before it stopped."""
    paid_calls: int
    """Calls whose answers the verdict rests on."""
    overspent_calls: int
    """Calls that were in flight when the test stopped."""
    cost_usd: float | None
    """Dollars; null when a price is unknown."""
    coverage: float
    """Share of the planned decisions that could be compared, in [0, 1]."""
    e_value: float
    """Global evidence against no change."""
    strata: tuple[StratumChange, ...]
    """Every planned stratum of the exit family."""
    completed_at: UtcMillis
    """UTC, milliseconds."""


class DivergenceAlert(Logged):
    """The candidate decides differently beyond chance."""

    kind: Literal["DivergenceAlert"] = "DivergenceAlert"
    """Discriminates the alert; the Avro record name on the wire."""
    run_id: str
    """Id of the run that raised it."""
    app: str
    """App name."""
    baseline: ArmRef
    """What the candidate was held against."""
    candidate: ArmRef
    """What was tried."""
    alpha: float
    """Bound on the probability of a false alarm."""
    e_value: float
    """Global evidence against no change."""
    paid_calls: int
    """Calls that the evidence cost."""
    change: float
    """Net change of the acceptance rate over all strata."""
    interval_lo: float
    """Lower end of its confidence sequence at the stop."""
    interval_hi: float
    """Upper end of it."""
    named: tuple[StratumChange, ...]
    """Strata that e-BH names; may be empty when the change is diffuse."""
    examples: tuple[str, ...]
    """Coordinates of decisions that changed, as `topic[partition]@offset`."""
    raised_at: UtcMillis
    """UTC, milliseconds."""


Alert = Annotated[ReplayCompleted | DivergenceAlert, Field(discriminator="kind")]
"""Any alert."""
