#!/usr/bin/env bash
# Writes the tables of docs/benchmarks.md anew from the records in benches/results/.
#
# usage: benches/tables.sh [PROGRAM]      (default: the one of `cargo run`)
set -euo pipefail
cd "$(dirname "$0")/.."
program=("${1:-cargo}")
[ $# -gt 0 ] || program=(cargo run --quiet --locked --)
tables=$(mktemp)
trap 'rm -f "$tables"' EXIT
"${program[@]}" bench --markdown --read benches/results/*.json >"$tables"
page=$(mktemp docs/.benchmarks.XXXXXX)
awk -v tables="$tables" '
    /^<!-- End of the tables/ { skipping = 0 }
    !skipping { print }
    /^<!-- The tables below/ { print ""; while ((getline line < tables) > 0) print line; print ""; skipping = 1 }
' docs/benchmarks.md >"$page"
chmod 644 "$page"
mv "$page" docs/benchmarks.md
