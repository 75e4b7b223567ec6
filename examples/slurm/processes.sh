#!/bin/sh
# The same without Slurm: PARTS processes on this machine, then the merge. The variables are those of submit.sh.
set -eu
: "${MODEL:?a model directory}" "${OUTPUT:?where the pruned model goes}"
PARTS="${PARTS:-4}"
NORMS="${NORMS:-$OUTPUT.norms.safetensors}"
OPTIONS="${OPTIONS:-}"
SWIFTPRUNE="${SWIFTPRUNE:-swiftprune-wgpu}"
THREADS="${THREADS:-1}"

[ -e "$NORMS" ] || "$SWIFTPRUNE" calibrate "$MODEL" -o "$NORMS"
pids=""
part=1
while [ "$part" -le "$PARTS" ]; do
    # shellcheck disable=SC2086 # options are words
    "$SWIFTPRUNE" -q prune "$MODEL" --output "$OUTPUT" --norms "$NORMS" --device "${DEVICE:-cpu}" \
        --part "$part/$PARTS" --resume --threads "$THREADS" $OPTIONS &
    pids="$pids $!"
    part=$((part + 1))
done
for pid in $pids; do
    wait "$pid"
done
"$SWIFTPRUNE" merge "$OUTPUT" --checksum --report "$OUTPUT.report.json"
