#!/bin/sh
# What the principal of replays may do: read everything of the apps, write driftline's own topics, and nothing else.
#
#   deploy/acl/replay-user.sh User:replay renewals contracts
#
# driftline's replay writer refuses an app's topics by itself; this makes the broker refuse them too, whatever the
# program. The denials are for clusters where a wider rule allows (or `allow.everyone.if.no.acl.found`): a denial wins.
set -eu
. "$(dirname "$0")/common.sh"
[ $# -ge 2 ] || usage "PRINCIPAL APP..."
principal=$1
shift

for app in "$@"; do
    rule --allow-principal "$principal" --operation Read --operation Describe --operation DescribeConfigs \
        --topic "$app." --resource-pattern-type prefixed
    rule --deny-principal "$principal" --operation Write --operation Create --operation Delete --operation Alter \
        --operation AlterConfigs --topic "$app." --resource-pattern-type prefixed
    # An app's transactional ids and consumer groups: a replay must not fence its processes nor move its position.
    rule --deny-principal "$principal" --operation Write --transactional-id "driftline.$app." \
        --resource-pattern-type prefixed
    rule --deny-principal "$principal" --operation Read --operation Delete --group "driftline.$app" \
        --resource-pattern-type prefixed
    # The exporter tells how far the app is behind.
    rule --allow-principal "$principal" --operation Describe --group "driftline.$app" --resource-pattern-type prefixed
done

rule --allow-principal "$principal" --operation Read --operation Write --operation Describe \
    --operation DescribeConfigs --topic driftline. --resource-pattern-type prefixed
rule --allow-principal "$principal" --operation Write --operation Describe \
    --transactional-id driftline-replay --resource-pattern-type prefixed
# No position is ever committed under it; librdkafka asks for its coordinator all the same.
rule --allow-principal "$principal" --operation Read --operation Describe --group driftline-reader
