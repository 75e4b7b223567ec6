#!/usr/bin/env bash
# Pairs `swiftprune-wgpu prune` with `cp` on a generated checkpoint of TinyLlama-1.1B's shapes, page cache warm.
#
# usage: benches/compare.sh [LAYERS] [RUNS]      (22 layers: 2.2 GB, which must fit into the page cache twice)
#
# Before each run of ours goes one of `cp`, so that both meet the same machine; a ratio is the median over such pairs. Needs
# cargo, cp and hyperfine; /usr/bin/time, where there is one, adds the peak memory. The files lie in $BENCH_DIR (default: a
# directory under target/) and the generated one is kept for the next time.
set -euo pipefail
cd "$(dirname "$0")/.."
layers=${1:-22} runs=${2:-7}
dir=${BENCH_DIR:-target/compare}/tinyllama-$layers
cargo build --release --quiet
[ -f "$dir/model.safetensors" ] || cargo run --release --quiet --example generate_checkpoint -- "$dir" "$layers"
in=$dir/model.safetensors out=$dir/out.safetensors
prune="target/release/swiftprune-wgpu prune $in -o $out --force --device cpu --quiet"
norms="--norms $dir/norms.safetensors"

names=("50 % EWMA" "2:4" "50 % exact" "50 % ria")
options=("$norms" "$norms --pattern 2:4" "$norms --selection exact" "$norms --score ria")
cat "$in" >/dev/null # warm the page cache
results=$(mktemp -d)
trap 'rm -rf "$results" "$out"' EXIT
seconds() { # of one run of a command
    hyperfine --style none --runs 1 --prepare "rm -f $out" --export-json "$results/run.json" "$1" >/dev/null
    sed -n 's/.*"median": \([0-9.e-]*\).*/\1/p' "$results/run.json" | head -1
}
for _ in $(seq "$runs"); do
    for i in "${!options[@]}"; do
        copy=$(seconds "cp $in $out")
        ours=$(seconds "$prune ${options[$i]}")
        echo "$copy" >>"$results/cp"
        echo "$ours" >>"$results/$i"
        awk -v ours="$ours" -v copy="$copy" 'BEGIN {print ours / copy}' >>"$results/$i.ratio"
    done
done
bytes=$(wc -c <"$in")
row() { # name, file of seconds, file of ratios or nothing
    sort -n "$2" | awk -v name="$1" -v bytes="$bytes" -v ratio="${3:+$(sort -n "$3" | median)}" '
        {t[NR] = $1}
        END {
            m = (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) / 2
            printf "%-10s  %6.3f s  (%.3f to %.3f)  %5.2f GB/s", name, m, t[1], t[NR], bytes / m / 1e9
            if (ratio != "") printf "  %5.2f x cp", ratio
            print ""
        }'
}
median() { # of sorted lines
    awk '{t[NR] = $1} END {print (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) / 2}'
}
printf '%s bytes, %s pairs of each, medians (fastest to slowest)\n' "$bytes" "$runs"
row cp "$results/cp"
for i in "${!options[@]}"; do
    row "${names[$i]}" "$results/$i" "$results/$i.ratio"
done
if [ -x /usr/bin/time ]; then
    for i in "${!options[@]}"; do
        # shellcheck disable=SC2086
        /usr/bin/time -f "peak memory, ${names[$i]//%/%%}: %M KiB" $prune ${options[$i]}
    done
fi
