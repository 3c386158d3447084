"""The jobs whose renderings are golden files, with words that are hard to quote.

`PYTHONPATH=. python tests/launched.py` writes the files again, after a change that
is meant.
"""

from collections.abc import Callable
from pathlib import Path

from launch import jobset, slurm, tpu_vm, workstation
from launch.job import Job, Kubernetes, Slurm, TpuVm

GOLDENS = Path(__file__).parent / "goldens" / "launch"

HARD = 'it\'s a "b" $HOME `c`\n$(d) \\ {e} # %f'
"""Nothing of it may reach a shell, YAML or Kubernetes as anything but itself."""
TRAIN = (
  "train",
  "--config=experiments/adapt.py",
  "--workdir=runs/mine",
  f"--config.data.path={HARD}",
)
COMMON = {
  "arguments": TRAIN,
  "name": "adapt",
  "python": "python3",
  "folder": "/home/me/hra clone",
  "env": (f"NOTE={HARD}", "HRA_CACHE=gs://mine/cache"),
}

LOCAL = Job(**COMMON, processes=2, port=12345)
TPU_VM = Job(
  **COMMON,
  accelerator="v4:2x2x4",
  tpu_vm=TpuVm(tpu="mine", zone="us-central2-b", project="speech"),
)
SLURM = Job(
  **COMMON,
  hosts=4,
  accelerator="gpu:8",
  cpus=12,
  memory_gib=900,
  hours=23.5,
  retries=2,
  deterministic=True,
  secrets=("HF_TOKEN",),
  slurm=Slurm(partition="big", account="speech", options=("--qos=high",)),
)
ELEMENTS = tuple(
  Job(
    arguments=(
      "sweep",
      "--workdir=runs/widths",
      f"--only=adapter.width={width}",
    ),
    name=f"width-{width}",
    python="python3",
  )
  for width in (64, 128, 256)
)
TPU_SLICES = Job(
  **COMMON,
  accelerator="2*v5e:16x16",
  hours=48,
  secrets=("HF_TOKEN",),
  kubernetes=Kubernetes(
    image="registry.example/hra:1",
    namespace="speech",
    queue="multislice-queue",
    priority="high",
    service_account="trainer",
    secret="keys",
    mounts=("corpora:/data", "runs:/runs"),
  ),
)
GPU_PODS = Job(
  **COMMON | {"folder": ""},
  hosts=2,
  accelerator="gpu:8",
  cpus=12,
  memory_gib=900,
  deterministic=True,
  kubernetes=Kubernetes(
    image="registry.example/hra:1",
    selectors=("cloud.google.com/gke-accelerator=nvidia-h100-80gb",),
  ),
)

RENDERED: dict[str, Callable[[], str]] = {
  "workstation.sh": lambda: workstation.render(LOCAL),
  "tpu_vm.sh": lambda: tpu_vm.render(TPU_VM),
  "slurm.sh": lambda: slurm.render(SLURM).text,
  "slurm_array.sh": lambda: (
    slurm.render_array(ELEMENTS, name="widths", at_once=2).text
  ),
  "jobset_tpu.yaml": lambda: jobset.render(TPU_SLICES).text,
  "jobset_gpu.yaml": lambda: jobset.render(GPU_PODS).text,
}

if __name__ == "__main__":
  for name, render in RENDERED.items():
    (GOLDENS / name).write_text(render())
