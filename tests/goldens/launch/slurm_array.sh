#!/bin/bash
#SBATCH --job-name=widths
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --output=widths-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --export=ALL
#SBATCH --requeue
#SBATCH --array=0-2%2
set -u
unset JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES JAX_PROCESS_ID
case "$SLURM_ARRAY_TASK_ID" in
0) hra=(python3 -m hra.commands.sweep --workdir=runs/widths --only=adapter.width=64) ;;
1) hra=(python3 -m hra.commands.sweep --workdir=runs/widths --only=adapter.width=128) ;;
2) hra=(python3 -m hra.commands.sweep --workdir=runs/widths --only=adapter.width=256) ;;
esac
ending=
trap 'ending=yes' TERM
for start in $(seq 4); do
  srun --label --kill-on-bad-exit=0 --wait=0 "${hra[@]}"
  code=$?
  [ -z "$ending" ] || exit "$code"
  case "$code" in
  0|2) exit "$code" ;;
  75|143) exec scontrol requeue "$SLURM_JOB_ID" ;;
  esac
  echo "start $start of 4 died (exit code $code)" >&2
done
exit "$code"
