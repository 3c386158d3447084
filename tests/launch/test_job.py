"""The job spec: what is refused before anything is rendered, by name."""

import dataclasses
import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
from launched import HARD, TPU_SLICES, TPU_VM

from hra.errors import InputError
from launch import accelerators, job, jobset, slurm, tpu_vm, workstation
from launch.job import Job, Kubernetes, Slurm

ROOT = Path(__file__).parents[2]
TRAIN = ("train", "--workdir=runs/mine")
IMAGE = Kubernetes(image="hra:1")


def _job(**fields) -> Job:
  return Job(arguments=TRAIN, **fields)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: Job(arguments=()), "--: expected a verb.*got nothing"),
    (lambda: Job(arguments=("trian",)), "got 'trian'; such as -- train"),
    (lambda: Job(arguments=("--config=a.py",)), "such as -- train"),
    (lambda: _job(name="Has Spaces"), "--name"),
    (lambda: _job(name="a\nb"), "--name"),
    (lambda: _job(hosts=-1), "--hosts: expected 0 or more, got -1"),
    (lambda: _job(grace=0), "--grace: expected 1 or more"),
    (lambda: _job(hours=math.nan), "--hours: expected a finite number"),
    (lambda: _job(pause=math.inf), "--pause: expected a finite number"),
    (lambda: _job(hours=0.05), r"--hours: expected more than --grace=120 and"),
    (lambda: _job(hours=2.0, grace=7140), r"--hours: .* 2, got 2"),
    (lambda: _job(port=65536), "--port: expected at most 65535"),
    (lambda: _job(env=("1A=b",)), "--env: expected NAME=VALUE"),
    (lambda: _job(env=("A",)), "--env: expected NAME=VALUE"),
    (lambda: _job(env=("HF_TOKEN=abc",)), "--secrets=HF_TOKEN"),
    (lambda: _job(secrets=("HF_TOKEN=abc",)), "got 'HF_TOKEN'"),
    (lambda: _job(slurm=Slurm(partition="a b")), "--partition"),
    (lambda: _job(slurm=Slurm(options=("--qos=a\nb",))), "--options"),
    (lambda: _job(kubernetes=Kubernetes(mounts=("a",))), "--mounts"),
    (lambda: _job(kubernetes=Kubernetes(selectors=("a",))), "--selectors"),
    (lambda: _job(accelerator="v5e"), "--accelerator.*v5e:16x16"),
    (lambda: _job(accelerator="v5:16x16"), "--accelerator"),
    (lambda: _job(accelerator="v4:16x16"), "such as v4:2x2x4"),
    (lambda: _job(accelerator="v4:3x3x4"), "such as v4:2x2x4"),
    (lambda: _job(accelerator="v5p:2x8x8"), "such as v5p:4x4x4"),
    (lambda: _job(accelerator="v5e:16x32"), "such as v5e:16x16"),
    (lambda: _job(accelerator="0*v4:2x2x4"), "--accelerator"),
    (lambda: _job(accelerator="gpu:0"), "gpu:8 for eight"),
  ],
)
def test_a_bad_job_is_refused(make, message):
  with pytest.raises(InputError, match=message):
    make()


@pytest.mark.parametrize(
  "name",
  [
    *("OPENAI_KEY", "DB_PWD", "AWS_ACCESS_KEY_ID", "WANDB_API_KEY", "apikey"),
    *("HF_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "MY_PASSWORD", "AUTH"),
  ],
)
def test_what_is_called_a_secret_is_never_written_down(name):
  with pytest.raises(InputError, match=f"--secrets={name}"):
    _job(env=(f"{name}=abc",))


def test_what_only_sounds_like_a_secret_is_none():
  env = ("TOKENIZERS_PARALLELISM=false", "KEYBOARD=us", "AUTHOR=me")
  assert len(job.environment(_job(env=env))) == 3


@pytest.mark.parametrize(
  ("render", "spec", "message"),
  [
    (workstation.render, _job(hosts=2), "--hosts: expected this machine"),
    (workstation.render, _job(accelerator="v5e:4x4"), "--accelerator"),
    (workstation.render, _job(hours=1.0), "--hours: expected nothing"),
    (
      workstation.render,
      _job(accelerator="gpu:8", processes=3),
      "divides 8 GPUs, got 3",
    ),
    (
      workstation.render,
      _job(slurm=Slurm(partition="big")),
      "--partition: expected nothing",
    ),
    (slurm.render, _job(accelerator="v5e:4x4"), "gpu:N with --launcher=slurm"),
    (slurm.render, _job(accelerator="gpu:8", processes=3), "1 or 8"),
    (slurm.render, _job(grace=65536), "--grace: expected at most 65535"),
    (slurm.render, _job(kubernetes=IMAGE), "--image: expected nothing"),
    (tpu_vm.render, _job(), "--tpu: expected a value"),
    (
      tpu_vm.render,
      dataclasses.replace(TPU_VM, accelerator="2*v4:2x2x4"),
      "one slice",
    ),
    (
      tpu_vm.render,
      dataclasses.replace(TPU_VM, hosts=3),
      "--hosts: expected 4",
    ),
    (
      tpu_vm.render,
      dataclasses.replace(TPU_VM, secrets=("A",)),
      "--secrets: expected nothing",
    ),
    (jobset.render, _job(), "--image: expected a value"),
    (jobset.render, _job(kubernetes=IMAGE, processes=2), "1 on each machine"),
    (
      jobset.render,
      dataclasses.replace(TPU_SLICES, hosts=64),
      "--hosts: expected 128 for",
    ),
    (
      jobset.render,
      dataclasses.replace(TPU_SLICES, name="a" * 51),
      "--name: expected at most 50 characters",
    ),
    (
      jobset.render,
      _job(kubernetes=IMAGE, secrets=("HF_TOKEN",)),
      "--secret: expected a value",
    ),
  ],
)
def test_what_a_launcher_cannot_honour_is_refused(render, spec, message):
  with pytest.raises(InputError, match=message):
    render(spec)


@pytest.mark.parametrize(
  ("text", "hosts", "chips_per_host"),
  [
    ("v5e:16x16", 64, 4),
    ("v4:2x2x4", 4, 4),
    ("v5p:4x8x12", 96, 4),
    ("2*v6e:2x4", 2, 4),
    ("v5e:1x1", 1, 1),
  ],
)
def test_a_slice_has_its_hosts(text, hosts, chips_per_host):
  tpus = accelerators.parse(text)
  assert (tpus.hosts, tpus.chips_per_host) == (hosts, chips_per_host)


def test_deterministic_adds_to_the_flags_of_xla(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
  [train] = workstation.commands(_job(deterministic=True))
  assert train.words[3:] == ("--deterministic", *TRAIN[1:])
  assert train.variables == {}
  sweep = Job(arguments=("sweep",), deterministic=True)
  [runs] = workstation.commands(sweep)
  assert runs.variables == {"XLA_FLAGS": f"--xla_a=1 {job.DETERMINISTIC}"}
  assert f"'--xla_a=1 {job.DETERMINISTIC}'" in slurm.render(sweep).text
  own = dataclasses.replace(sweep, env=("XLA_FLAGS=--xla_b=1",))
  assert job.environment(own) == {"XLA_FLAGS": f"--xla_b=1 {job.DETERMINISTIC}"}


def test_gpus_are_divided_among_local_processes():
  spec = _job(accelerator="gpu:4", processes=2, port=1)
  shares = [
    each.variables["JAX_LOCAL_DEVICE_IDS"]
    for each in workstation.commands(spec)
  ]
  assert shares == ["0,1", "2,3"]


def test_a_local_process_alone_sees_the_gpus_that_it_is_given():
  [alone] = workstation.commands(_job(accelerator="gpu:2"))
  assert alone.variables == {"JAX_CUDA_VISIBLE_DEVICES": "0,1"}


@pytest.fixture(scope="module")
def printed():
  """What the command says of a job by flags, and of one that is refused."""
  argv = [sys.executable, "-m", "launch", "--dry_run"]

  def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
      [*argv, *flags], cwd=ROOT, capture_output=True, text=True
    )

  return (
    run(f"--env=NOTE={HARD}", "--", "train", f"--workdir={HARD}"),
    run("--launcher=jobset", "--", "train"),
  )


def test_a_shell_runs_what_dry_run_prints(printed):
  line = printed[0].stdout.replace(sys.executable, "printf '%s\\0' \"$NOTE\"")
  line = line.replace("NOTE=", "export NOTE=", 1)
  assert line.count("printf") == 1
  line = line.replace(" printf", "; printf", 1)
  words = subprocess.run(
    ["sh", "-c", line], capture_output=True, text=True, check=True
  ).stdout.split("\0")
  assert words[:-1] == [HARD, "-m", "hra.commands.train", f"--workdir={HARD}"]


def test_bad_input_is_one_line(printed):
  assert printed[1].returncode == job.BAD_INPUT
  assert printed[1].stdout == ""
  assert printed[1].stderr.startswith("launch: --image: expected a value")
  assert printed[1].stderr.count("\n") == 1


def test_hra_knows_nothing_of_launch():
  for path in (ROOT / "hra").rglob("*.py"):
    words = path.read_text().split()
    pairs = set(itertools.pairwise(words))
    assert not {("import", "launch"), ("from", "launch")} & pairs, path
