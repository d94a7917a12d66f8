#!/bin/sh
# One run whose repeats go to the nodes of one job, on a Ray cluster that is there as long as the job.
# Once before, on a home directory that all nodes share: ray get-auth-token --generate
#   sbatch --nodes=4 --gpus-per-node=1 docs/fleet/slurm-ray.sh repeats=8 engine=vllm,sglang model=hf:ORG/NAME
#SBATCH --job-name=bench
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --output=bench-%j.log
export RAY_AUTH_MODE=token
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | cut -d ' ' -f 1):6379
exec srun ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  bench run "$@" --on "ray:$address" --output "results/$SLURM_JOB_ID"
