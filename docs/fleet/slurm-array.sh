#!/bin/sh
# A repeat of one run in each task of an array; docs/fleet.md says how to join them.
#   sbatch --array=1-5 --gpus=1 docs/fleet/slurm-array.sh repeats=5 engine=vllm,sglang model=hf:ORG/NAME
#SBATCH --job-name=bench
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --output=bench-%A_%a.log
exec bench run "$@" --only-repeat "$SLURM_ARRAY_TASK_ID" \
  --output "results/$SLURM_ARRAY_JOB_ID/$SLURM_ARRAY_TASK_ID"
