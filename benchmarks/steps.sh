#!/usr/bin/env bash
# Every ratio of a training step: meshes and sizes, one job after another. About ten minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1

step() { torchrun --nproc-per-node "$1" benchmarks/step.py "${@:2}" 2>/dev/null; }

for hidden in 64 256; do
  step 2 tp=2 --hidden $hidden
  step 4 pp=2 tp=2 --hidden $hidden
  step 8 pp=2 ep=2 tp=2 --hidden $hidden --steps 20
  step 4 ep=4 --hidden $hidden
done
for hidden in 64 256 512; do
  python benchmarks/one_rank.py --hidden $hidden --steps 20 2>/dev/null
done
