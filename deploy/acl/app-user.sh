#!/bin/sh
# What the principal of an app's processes may do: its own topics, its group, its transactional ids.
#
#   deploy/acl/app-user.sh User:renewals renewals
#
# For `driftline run`, `effect`, `tick`, `kill`, `throttle` and for publishers of the app's facts.
set -eu
. "$(dirname "$0")/common.sh"
[ $# -eq 2 ] || usage "PRINCIPAL APP"
principal=$1
app=$2

for topics in "$app." driftline.; do
    # Without Create, run `driftline topics create` as somebody who may.
    rule --allow-principal "$principal" --operation Read --operation Write --operation Describe \
        --operation DescribeConfigs --operation Create --topic "$topics" --resource-pattern-type prefixed
done
for ids in "driftline.$app." "driftline-control.$app."; do
    rule --allow-principal "$principal" --operation Write --operation Describe --transactional-id "$ids" \
        --resource-pattern-type prefixed
done
rule --allow-principal "$principal" --operation Read --operation Describe --group "driftline.$app"
# Its effectors'.
rule --allow-principal "$principal" --operation Read --operation Describe --group "driftline.$app." \
    --resource-pattern-type prefixed
rule --allow-principal "$principal" --operation Read --operation Describe --group driftline-reader
