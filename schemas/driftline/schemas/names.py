"""Record names of driftline's own contracts."""

DECISION = "driftline.Decision"
ROW = "driftline.Row"
ESCALATED = "driftline.Escalated"
ARTIFACT = "driftline.Artifact"
RECORDED_INPUT = "driftline.RecordedInput"
CONTROL_SETTING = "driftline.ControlSetting"
EFFECT_REPORTED = "driftline.EffectReported"
