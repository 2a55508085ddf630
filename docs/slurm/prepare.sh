#!/bin/bash
#SBATCH --job-name=prepare
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --output=%x-%A_%a.log
# sbatch --array=1-8 prepare.sh RECIPE ARGUMENTS...   each task converts a part of the recordings
# sbatch prepare.sh RECIPE ARGUMENTS...               converts what is left and writes the manifests
set -euo pipefail
recipe=$1
shift
python "recipes/$recipe/run.py" --steps prepare "$@" \
    ${SLURM_ARRAY_TASK_ID:+--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"}
