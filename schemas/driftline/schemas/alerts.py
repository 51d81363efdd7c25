"""What replay puts on `driftline.alerts`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from driftline.schemas.fields import Logged, UtcMillis

NIGHTLY_MODE = "nightly"
"""Of what a night that is counted whole leaves; a replay by hand has another, so that it hides no missing night."""


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
    parameters_hash: str = ""
    """Hash of the parameters laid over the log's; empty where there are none."""


class ReplayCompleted(Logged):
    """A replay came to its verdict."""

    kind: Literal["ReplayCompleted"] = "ReplayCompleted"
    """Discriminates the alert; the Avro record name on the wire."""
    run_id: str
    """Id of the run; its folder has that name."""
    app: str
    """App name."""
    mode: str
    """`forced` or `shadow`; of a night `forced` for a candidate, `incumbent` for the incumbent, and once `nightly`
    for the whole when all is counted: then the verdict is that of today's rules, and the e-value 1."""
    baseline: ArmRef
    """What the candidate was held against."""
    candidate: ArmRef
    """What was tried."""
    verdict: str
    """`diverged`, `equivalent` or `inconclusive`."""
    stopped_because: str
    """`alarm`, `equivalent`, `segment_ended`, `budget_ended` or `coverage`; in `shadow` also `time_ended` or
    `interrupted`."""
    alpha: float
    """Bound on the probability of a false alarm."""
    delta: float
    """Half-width of the equivalence region."""
    events: int
    """Decisions in the segment."""
    compared: int
    """Pairs that entered the test before it stopped; of a night's candidate, those of all its nights."""
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
    noise: float | None = None
    """Share of pairs of the incumbent's own runs whose verdicts differ; null without such runs."""
    noise_lo: float | None = None
    """Lower end of its interval."""
    noise_hi: float | None = None
    """Upper end of it."""
    night_ends_at: UtcMillis | None = None
    """Of mode `nightly`: when the night was over, UTC, milliseconds; null for every other."""


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
    """Net change of the acceptance rate over all strata; of a night's candidate over all its nights where there is
    one stratum, and that night's alone where there are several: each of those carries its own, as `named` has it."""
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


class EnvironmentDriftAlert(Logged):
    """The incumbent of today decides otherwise than was logged: verifier, harness or provider moved.

    It says nothing about any candidate, either way.
    """

    kind: Literal["EnvironmentDriftAlert"] = "EnvironmentDriftAlert"
    """Discriminates the alert; the Avro record name on the wire."""
    run_id: str
    """Id of the run that raised it."""
    app: str
    """App name."""
    baseline: ArmRef
    """What was logged, judged by the verifier of today."""
    incumbent: ArmRef
    """The same model and prompt, asked again."""
    alpha: float
    """Bound on the probability of a false alarm."""
    e_value: float
    """Global evidence against no drift."""
    paid_calls: int
    """Calls that the evidence cost."""
    change: float
    """Net change of the acceptance rate over all strata."""
    interval_lo: float
    """Lower end of its confidence sequence at the stop."""
    interval_hi: float
    """Upper end of it."""
    named: tuple[StratumChange, ...]
    """Strata that e-BH names; may be empty when the drift is diffuse."""
    examples: tuple[str, ...]
    """Coordinates of decisions that came out differently, as `topic[partition]@offset`."""
    raised_at: UtcMillis
    """UTC, milliseconds."""


class MigrationRun(Logged):
    """One confirmed divergence that migration advice rests on."""

    run_id: str
    """Id of the run; its folder has that name."""
    incumbent: str
    """`provider/name` of the model in place, asked afresh in this run."""
    candidate: str
    """`provider/name` of what was tried, and in brackets its prompt, verifier and parameters."""
    level: str
    """`verdict` or `state`, and `of BOUNDARY/STREAM` where it is that of a named stratum: what clears delta."""
    against: str
    """`incumbent`, asked afresh, or `log`: what the effect is held against."""
    effect: float
    """Mean paired change at that level, in [-1, 1]."""
    interval_lo: float
    """Lower end of its confidence sequence."""
    interval_hi: float
    """Upper end of it."""
    confidence: float
    """Confidence of the interval, in (0, 1)."""
    delta: float
    """Half-width of the equivalence region that the interval clears."""
    diagnosis_e_value: float
    """Evidence that the candidate fails what the incumbent passes, both asked afresh on the failing batch."""
    first_event_time: UtcMillis
    """Event time of the earliest decision replayed."""
    last_event_time: UtcMillis
    """Event time of the latest."""
    offsets: tuple[str, ...]
    """The decisions replayed, as `topic[partition]@first-last`, a partition each."""


class MigrationPredicate(Logged):
    """One property of the workflows, measured on the log, that only a state row answers."""

    name: str
    """`pauses`, `state_not_reconstructible` or `world_moves_on`."""
    measure: float
    """Share of workflows that have the property, in [0, 1]."""
    interval_lo: float
    """Lower end of its 95 % interval."""
    interval_hi: float
    """Upper end of it."""
    threshold: float
    """The property holds where the lower end is above this."""
    workflows: int
    """Workflows that were looked at."""
    examples: tuple[str, ...]
    """Coordinates of records that show it, as `topic[partition]@offset`."""


class MigrationAlert(Logged):
    """The workflow should move its spine from P3, the log, to P5, a versioned row.

    Divergence is confirmed and recurs, and the log shows the three properties of such a workflow.
    """

    kind: Literal["MigrationAlert"] = "MigrationAlert"
    """Discriminates the alert; the Avro record name on the wire."""
    run_id: str
    """Id of the advice: a hash of the app, the runs that it rests on and why it recurs; these raise one alert."""
    app: str
    """App name."""
    boundaries: tuple[str, ...]
    """The boundaries that decide in these workflows."""
    streams: tuple[str, ...]
    """Event types of these workflows."""
    recurs_by: str
    """`windows`, `candidates` or `end_date`: why it will happen again."""
    incumbent_ends_at: UtcMillis | None
    """When the provider takes the incumbent away; null where nobody said."""
    runs: tuple[MigrationRun, ...]
    """The confirmed divergences, oldest segment first."""
    predicates: tuple[MigrationPredicate, ...]
    """The three measured properties."""
    advice: str
    """What to do, in one sentence."""
    raised_at: UtcMillis
    """UTC, milliseconds."""


Alert = Annotated[
    ReplayCompleted | DivergenceAlert | EnvironmentDriftAlert | MigrationAlert, Field(discriminator="kind")
]
"""Any alert."""
