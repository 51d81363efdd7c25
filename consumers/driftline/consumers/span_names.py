"""Names of span attributes, as OpenTelemetry's semantic conventions 1.44.0 write them.

`messaging.*` is of the messaging conventions, `gen_ai.*` of those for generative AI; both are marked as in
development there, and their Python constants have moved between packages: they are written out here.
`driftline.*` is ours.
"""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION_NAME = "messaging.operation.name"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_DESTINATION_NAME = "messaging.destination.name"
MESSAGING_DESTINATION_PARTITION_ID = "messaging.destination.partition.id"
MESSAGING_KAFKA_OFFSET = "messaging.kafka.offset"
MESSAGING_MESSAGE_ID = "messaging.message.id"
MESSAGING_BATCH_MESSAGE_COUNT = "messaging.batch.message_count"

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"

ERROR_TYPE = "error.type"

APP = "driftline.app"
BOUNDARY = "driftline.boundary"
STREAM = "driftline.stream"
DECISION_ID = "driftline.decision.id"
VERDICT = "driftline.verdict"
ACTION_TYPE = "driftline.action.type"
ATTEMPT = "driftline.attempt"
COST_USD = "driftline.cost_usd"
REJECTION = "driftline.rejection"
REJECTION_CODE = "driftline.rejection.code"
REJECTION_RULE_ID = "driftline.rejection.rule_id"
REJECTION_RETRYABLE = "driftline.rejection.retryable"
