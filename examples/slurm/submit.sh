#!/bin/sh
# Prunes MODEL into OUTPUT by a job array of PARTS tasks. Prints the number of the last job.
#
#   MODEL=... OUTPUT=... [PARTS=4] [NORMS=OUTPUT.norms.safetensors] [OPTIONS="--sparsity 0.5"] [SWIFTPRUNE=swiftprune-wgpu]
set -eu
: "${MODEL:?a model directory}" "${OUTPUT:?where the pruned model goes}"
PARTS="${PARTS:-4}"
NORMS="${NORMS:-$OUTPUT.norms.safetensors}"
OPTIONS="${OPTIONS:-}"
SWIFTPRUNE="${SWIFTPRUNE:-swiftprune-wgpu}"
export MODEL OUTPUT PARTS NORMS OPTIONS SWIFTPRUNE
here="$(cd "$(dirname "$0")" && pwd)"

after=""
if [ ! -e "$NORMS" ]; then
    job="$(sbatch --parsable "$here/calibrate.sbatch")"
    after="--dependency=afterok:$job"
fi
# shellcheck disable=SC2086 # no dependency is no word
array="$(sbatch --parsable $after --array="1-$PARTS" "$here/part.sbatch")"
# kill-on-invalid-dep: without it, the merge waits for ever for a part that has failed.
sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes "$here/merge.sbatch"
