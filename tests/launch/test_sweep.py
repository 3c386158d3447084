"""Sweeps that a cluster does: what is rendered, of what is left to do."""

import json
import subprocess
import sys

import pytest
import yaml

EXPERIMENT = """
from hra.config import Config

def get_config():
  return Config()
"""

SCRIPT = """
import contextlib, io, json, sys
from absl import flags
from launch import flags as ours
from launch import sweep
ours.define(without=("processes",))
told = []
for call in json.loads(sys.argv[1]):
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  rest = flags.FLAGS(["sweep", *call])
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      sweep.main(rest)
    except SystemExit as end:
      told.append([end.code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  """Exit code, output and errors of several calls; and the experiment's file."""
  folder = tmp_path_factory.mktemp("launched")
  experiment = folder / "mine.py"
  experiment.write_text(EXPERIMENT)
  workdir = folder / "it's a sweep"
  asked = [
    f"--config={experiment}",
    f"--workdir={workdir}",
    "--axis=seed=0,1,2",
    "--config.data.tasks=[a b]",
  ]
  array = ["--launcher=slurm", "--accelerator=gpu:8", "--cpus=4"]
  sets = ["--launcher=jobset", "--image=hra:1", "--name=widths"]
  dry = ["--dry_run", "--", *asked]
  calls = {
    "workstation": dry,
    "slurm": [*array, "--memory_gib=64", "--at_once=2", *dry],
    "jobset": [*sets, "--accelerator=v5e:2x2", *dry],
    "slice": [*sets, "--accelerator=v5e:4x4", *dry],
    "hosts": [*array, "--hosts=2", *dry],
    "unknown": ["--dry_run", "--", "--axes=seed=0"],
    "empty": ["--launcher=slurm", "--dry_run", "--", *asked[:2]],
  }
  done = subprocess.run(
    [sys.executable, "-c", SCRIPT, json.dumps(list(calls.values()))],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return dict(zip(calls, json.loads(done.stdout), strict=True)), asked


def _quoted(asked, *more):
  quoted = [each.replace("'", "'\"'\"'") for each in (*asked, *more)]
  return [f"'{each}'" if set(each) & set(" '[") else each for each in quoted]


def test_an_array_has_an_element_for_each_run_and_a_list_behind_it(told):
  (code, out, err), asked = told[0]["slurm"], told[1]
  assert (code, err) == (0, "")
  array, last = out.split("\n\n")
  assert "#SBATCH --array=0-2%2" in array
  assert "#SBATCH --ntasks-per-node=1" in array
  for seed in range(3):
    words = " ".join(_quoted(asked, f"--only=seed={seed}"))
    assert (
      f"\n{seed}) hra=({sys.executable} -m hra.commands.sweep {words}) ;;"
      in (array)
    )
  assert "#SBATCH --dependency=afterany:ARRAY" in last
  assert " ".join(_quoted(asked, "--jobs=0")) in last
  assert "gpus" not in last
  assert "--mem" not in last


def test_each_run_is_a_jobset(told):
  (code, out, _), asked = told[0]["jobset"], told[1]
  assert code == 0
  sets = list(yaml.safe_load_all(out))
  names = [each["metadata"]["name"] for each in sets]
  assert names == ["widths-0", "widths-1", "widths-2"]
  for seed, each in enumerate(sets):
    (jobs,) = each["spec"]["replicatedJobs"]
    pod = jobs["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == [
      *("python3", "-m", "hra.commands.sweep"),
      *(*asked, f"--only=seed={seed}"),
    ]


def test_on_this_machine_it_is_the_sweep_itself(told):
  (code, out, _), asked = told[0]["workstation"], told[1]
  words = " ".join(_quoted(asked))
  assert (code, out) == (
    0,
    f"{sys.executable} -m hra.commands.sweep {words}\n",
  )


@pytest.mark.parametrize(
  ("call", "says"),
  [
    ("slice", "--accelerator: expected one machine for each run"),
    ("hosts", "--hosts: expected one machine for each run"),
    ("unknown", "Unknown command line flag 'axes'"),
    ("empty", "--axis: expected an axis"),
  ],
)
def test_refusals(told, call, says):
  code, out, err = told[0][call]
  assert (code, out) == (2, "")
  assert says in err
  assert err.count("\n") == 1
