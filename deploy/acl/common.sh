# Sourced by the scripts beside it: one call of Kafka's own tool a rule. Adding a rule again changes nothing.
#
#   BOOTSTRAP_SERVERS  brokers (127.0.0.1:9092)
#   COMMAND_CONFIG     properties file of an administrator, for kafka-acls --command-config
#   KAFKA_ACLS         the tool (kafka-acls.sh)

rule() {
    "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "${BOOTSTRAP_SERVERS:-127.0.0.1:9092}" \
        ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} --add "$@"
}

usage() {
    echo "usage: $0 $1" >&2
    exit 2
}
