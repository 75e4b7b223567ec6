#!/usr/bin/env bash
# Writes the tables of scores in docs/quality.md anew, from what `sweep` measured: benches/quality/scores.csv and gemma.csv.
#
# usage: benches/quality.sh [--check]      (--check: exit code 1 if the page is not what the file makes)
set -euo pipefail
cd "$(dirname "$0")/.."

# A row for each score, a column for each rule, empty where nothing was measured: table FILE COMPENSATED(0|1)
table() {
    awk -F, -v compensated="$2" '
        function percent(rule) { return (rule ~ /:/) ? rule : sprintf("%.0f %%", 100 * rule) }
        function figure(x) { return sprintf((x < 100) ? "%.2f" : (x < 1000) ? "%.1f" : "%.0f", x) }
        { sub(/\r$/, "") }
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
        $column["score"] == "dense" || ($column["compensation_rank"] != "") != compensated { next }
        {
            score = $column["score"]; rule = $column["pruned"]
            if (!(score in row)) { row[score] = ++rows; scores[rows] = score }
            if (!(rule in place)) { place[rule] = ++places; rules[places] = rule }
            perplexity[score, rule] = $column["perplexity"]
        }
        END {
            head = "| `--score` |"; line = "|---|"
            for (c = 1; c <= places; c++) { head = head " " percent(rules[c]) " |"; line = line "---|" }
            print head; print line
            for (r = 1; r <= rows; r++) {
                line = "| `" scores[r] "` |"
                for (c = 1; c <= places; c++) {
                    measured = (scores[r], rules[c]) in perplexity
                    line = line " " (measured ? figure(perplexity[scores[r], rules[c]]) : "") " |"
                }
                print line
            }
        }' "benches/quality/$1.csv"
}

tables=$(mktemp -d)
trap 'rm -rf "$tables"' EXIT
table scores 0 >"$tables/alone"
table scores 1 >"$tables/compensated"
table gemma 0 >"$tables/gemma-alone"
table gemma 1 >"$tables/gemma-compensated"
# Each table lies between a line that names it and the next empty line.
awk -v tables="$tables" '
    skipping && /^$/ { skipping = 0 }
    !skipping { print }
    /^<!-- benches\/quality.sh: / { while ((getline line < (tables "/" $3)) > 0) print line; skipping = 1 }
' docs/quality.md >"$tables/page"
if [[ ${1:-} == --check ]]; then
    diff -u docs/quality.md "$tables/page"
else
    cat "$tables/page" >docs/quality.md
fi
