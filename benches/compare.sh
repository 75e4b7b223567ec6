#!/usr/bin/env bash
# Pairs `swiftprune-wgpu prune` with `cp` on a generated checkpoint of TinyLlama-1.1B's shapes, page cache warm.
#
# usage: benches/compare.sh [LAYERS] [RUNS]      (22 layers: 2.2 GB, which must fit into the page cache twice)
#
# Each round runs every command once, so that they meet the same machine; the ratios are of medians. Needs cargo, cp and
# hyperfine; /usr/bin/time, where there is one, adds the peak memory. The files lie in $BENCH_DIR (default: a directory
# under target/) and the generated one is kept for the next time.
set -euo pipefail
cd "$(dirname "$0")/.."
layers=${1:-22} runs=${2:-7}
dir=${BENCH_DIR:-target/compare}/tinyllama-$layers
cargo build --release --quiet
[ -f "$dir/model.safetensors" ] || cargo run --release --quiet --example generate_checkpoint -- "$dir" "$layers"
in=$dir/model.safetensors out=$dir/out.safetensors
prune="target/release/swiftprune-wgpu prune $in -o $out --force --device cpu --quiet"
norms="--norms $dir/norms.safetensors"

names=("cp" "50 % EWMA" "2:4" "50 % exact" "50 % ria")
commands=(
    "cp $in $out"
    "$prune $norms"
    "$prune $norms --pattern 2:4"
    "$prune $norms --selection exact"
    "$prune $norms --score ria"
)
cat "$in" >/dev/null # warm the page cache
results=$(mktemp -d)
trap 'rm -rf "$results" "$out"' EXIT
for round in $(seq "$runs"); do
    for i in "${!commands[@]}"; do
        hyperfine --style none --runs 1 --prepare "rm -f $out" --export-json "$results/$i-$round.json" \
            "${commands[$i]}" >/dev/null
    done
done
median() { # of the wall times of command $1
    for round in $(seq "$runs"); do
        sed -n 's/.*"median": \([0-9.]*\).*/\1/p' "$results/$1-$round.json" | head -1
    done | sort -n | awk '{t[NR] = $1} END {print (NR % 2) ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2}'
}
bytes=$(wc -c <"$in")
base=$(median 0)
printf '%s bytes, %s rounds, medians\n' "$bytes" "$runs"
for i in "${!commands[@]}"; do
    awk -v name="${names[$i]}" -v t="$(median "$i")" -v base="$base" -v bytes="$bytes" \
        'BEGIN {printf "%-12s %7.3f s  %6.2f GB/s  %5.2f x cp\n", name, t, bytes / t / 1e9, t / base}'
done
if [ -x /usr/bin/time ]; then
    # shellcheck disable=SC2086
    /usr/bin/time -f 'peak memory, 50 %% EWMA: %M KiB' $prune $norms
fi
