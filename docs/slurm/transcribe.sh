#!/bin/bash
#SBATCH --job-name=transcribe
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%A_%a.log
# sbatch --array=1-8 transcribe.sh MODEL OUT INPUT...   each task transcribes a part of the inputs to the folder OUT
# sbatch transcribe.sh MODEL OUT INPUT...               transcribes what is left; all results, in input order, to OUT.jsonl
set -euo pipefail
model=$1 out=$2
shift 2
common=("$@" -m "$model" -o "$out" -f json,txt --resume)
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    asr transcribe "${common[@]}" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
else
    asr transcribe "${common[@]}" --json > "$out.jsonl"
fi
