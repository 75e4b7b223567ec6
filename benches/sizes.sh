#!/usr/bin/env bash
# Time a GB and peak memory by size of the file: `cp` and 50 % EWMA in turns on generated checkpoints of TinyLlama-1.1B's
# layers, the vocabulary in proportion, so that as large a share of each is pruned.
#
# usage: benches/sizes.sh [ROUNDS [GB...]]      (7 rounds of 1, 4 and 8 GB)
#
# Input and output lie in memory ($BENCH_DIR, default /dev/shm), so that no disk has a part in it, and before each run what is
# left of the memory is filled with the page cache of a file that nobody needs: every run then gets memory from there,
# where free memory may first have to be had from a virtual machine's host. Memory for twice the largest file and a few GB
# more is needed, and GNU time.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7}
shift || true
[ $# -gt 0 ] || set -- 1 4 8
dir=${BENCH_DIR:-/dev/shm}/swiftprune-sizes
model=$dir/model.safetensors out=$dir/out.safetensors filler=target/filler results=$(mktemp)
trap 'rm -rf "$dir" "$filler" "$results"' EXIT
cargo build --release --quiet
mkdir -p "$dir"
truncate -s "$(awk '/MemTotal/ {print $2}' /proc/meminfo)K" "$filler" # sparse: it takes no room on the disk
fill() {
    rm -f "$out"
    cat "$filler" >/dev/null
}
for gb in "$@"; do
    layers=$((10 * gb)) vocabulary=$((14545 * gb))
    rm -rf "$dir" && mkdir -p "$dir"
    cargo run --release --quiet --example generate_checkpoint -- "$dir" "$layers" "$vocabulary" >/dev/null
    bytes=$(wc -c <"$model")
    for _ in $(seq "$rounds"); do
        fill
        /usr/bin/time -f "$bytes cp %e %U %M" cp "$model" "$out" 2>>"$results"
        fill
        /usr/bin/time -f "$bytes ewma %e %U %M" target/release/swiftprune-wgpu prune "$model" -o "$out" --force \
            --device cpu --quiet --norms "$dir/norms.safetensors" 2>>"$results"
    done
done
echo 'bytes       what    s/GB   (fastest to slowest)   user s/GB   peak KiB'
sort -s -k1,1n -k2,2 -k3,3n "$results" | awk '
    function row() {
        if (n) printf "%-10s  %-4s  %6.3f   (%.3f to %.3f)         %6.3f   %8d\n", bytes, what, \
            (t[int((n + 1) / 2)] + t[int(n / 2) + 1]) / 2, t[1], t[n], user / n, peak
        n = user = peak = 0
    }
    $1 != bytes || $2 != what {row(); bytes = $1; what = $2}
    {t[++n] = $3 / $1 * 1e9; user += $4 / $1 * 1e9; if ($5 > peak) peak = $5}
    END {row()}'
