#!/bin/bash
#SBATCH --job-name=score
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
# sbatch score.sh REFERENCE HYPOTHESES [OPTIONS of asr score]
set -euo pipefail
asr score "$@"
