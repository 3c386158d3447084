"""Where a job of `hra` runs: this machine, TPU VMs, Slurm, Kubernetes.

    python -m launch --launcher=slurm --hosts=4 -- train --config=experiments/adapt.py \
      --workdir=runs/mine --config.data.path=data/mine

What follows `--` is what follows `hra`. Schedulers that people run already do the
scheduling; nothing here waits, queues or watches but the launcher of this machine.
"""
