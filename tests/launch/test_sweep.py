"""Sweeps that a cluster does: what is rendered, of what is left to do."""

import json
import os
import re
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


# Takes each name once, and has seed=1's already.
KUBECTL = """#!/bin/sh
set=$(cat)
name=$(echo "$set" | sed -n 's/^  name: //p')
case "$set" in *--only=seed=1*) touch "$0-$name" ;; esac
[ ! -e "$0-$name" ] && touch "$0-$name" && echo "$name created" && exit
echo "Error from server (AlreadyExists): \"$name\" already exists" >&2
exit 1
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
    "only": [*sets, *dry, "--only", "seed=1"],
    "jobs": [*array, *dry, "--jobs=2"],
    "relative": [*array, "--folder=/elsewhere", *dry, "--workdir=here"],
    "submitted": [*sets, "--", *asked],
    "again": [*sets, "--", *asked, "--only=seed=1", "--only=seed=2"],
    "many": [
      *(*array, *dry[:2], *asked[:2]),
      f"--axis=seed={','.join(map(str, range(1001)))}",
    ],
    "empty": ["--launcher=slurm", "--dry_run", "--", *asked[:2]],
  }
  kubectl = folder / "bin" / "kubectl"
  kubectl.parent.mkdir()
  kubectl.write_text(KUBECTL)
  kubectl.chmod(0o755)
  done = subprocess.run(
    [sys.executable, "-c", SCRIPT, json.dumps(list(calls.values()))],
    env={**os.environ, "PATH": f"{kubectl.parent}:{os.environ['PATH']}"},
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


def test_more_runs_than_an_array_has_are_several_behind_each_other(told):
  code, out, err = told[0]["many"]
  assert (code, err) == (0, "")
  first, second, last = out.split("\n\n")
  assert "#SBATCH --array=0-999\n" in first
  assert "--dependency" not in first
  assert "\n999) hra=" in first
  for script in (second, last):
    assert "#SBATCH --dependency=afterany:ARRAY" in script
  assert "#SBATCH --array=0-0\n" in second
  assert "--only=seed=1000)" in second
  assert "--jobs=0" in last


def test_each_run_is_a_jobset(told):
  (code, out, _), asked = told[0]["jobset"], told[1]
  assert code == 0
  sets = list(yaml.safe_load_all(out))
  names = [each["metadata"]["name"] for each in sets]
  assert len(set(names)) == 3
  assert all(re.fullmatch("widths-[0-9a-f]{8}", name) for name in names)
  for seed, each in enumerate(sets):
    (jobs,) = each["spec"]["replicatedJobs"]
    pod = jobs["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == [
      *("python3", "-m", "hra.commands.sweep"),
      *(*asked, f"--only=seed={seed}"),
    ]


def test_one_run_alone_has_the_name_that_it_has_among_all(told):
  sets = [
    list(yaml.safe_load_all(told[0][each][1])) for each in ("jobset", "only")
  ]
  (alone,) = sets[1]
  assert alone["metadata"]["name"] == sets[0][1]["metadata"]["name"]
  (jobs,) = alone["spec"]["replicatedJobs"]
  (container,) = jobs["template"]["spec"]["template"]["spec"]["containers"]
  assert [
    word for word in container["command"] if word.startswith("--only")
  ] == ["--only=seed=1"]


def test_what_is_there_already_keeps_no_other_run_back(told):
  code, out, err = told[0]["submitted"]
  assert (code, err) == (0, "")
  lines = out.splitlines()
  names = [line.split()[0] for line in lines[:3]]
  assert lines[0] == f"{names[0]} created: seed=0"
  assert lines[1] == f"{names[1]} is there already: seed=1"
  assert lines[2] == f"{names[2]} created: seed=2"
  assert lines[-1].split() == [
    *("kubectl", "delete", "jobset", "--namespace=default", names[1])
  ]
  code, out, _ = told[0]["again"]
  assert code == 0
  assert out.splitlines()[-1].split()[-2:] == names[1:]


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
    ("jobs", "--jobs: expected none with --launcher=slurm"),
    ("relative", "--workdir: expected an absolute path"),
    ("unknown", "Unknown command line flag 'axes'"),
    ("empty", "--axis: expected an axis"),
  ],
)
def test_refusals(told, call, says):
  code, out, err = told[0][call]
  assert (code, out) == (2, "")
  assert says in err
  assert err.count("\n") == 1
