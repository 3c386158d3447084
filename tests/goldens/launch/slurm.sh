#!/bin/bash
#SBATCH --job-name=adapt
#SBATCH --partition=big
#SBATCH --account=speech
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=900G
#SBATCH --gpus-per-node=8
#SBATCH --time=1410
#SBATCH --signal=TERM@120
#SBATCH --output=adapt-%j.out
#SBATCH --open-mode=append
#SBATCH --export=ALL
#SBATCH --requeue
#SBATCH --qos=high
set -u
cd '/home/me/hra clone' || exit 2
unset JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES JAX_PROCESS_ID
export NOTE='it'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f'
export HRA_CACHE=gs://mine/cache
hra=(python3 -m hra.commands.train --deterministic --config=experiments/adapt.py --workdir=runs/mine '--config.data.path=it'"'"'s a "b" $HOME `c`
$(d) \ {e} # %f')
ending=
trap 'ending=yes' TERM
for start in $(seq 3); do
  srun --label --kill-on-bad-exit=0 --wait=0 --cpus-per-task=12 "${hra[@]}"
  code=$?
  [ -z "$ending" ] || exit "$code"
  case "$code" in
  0|2) exit "$code" ;;
  75|143) exec scontrol requeue "$SLURM_JOB_ID" ;;
  esac
  echo "start $start of 3 died (exit code $code)" >&2
done
exit "$code"
