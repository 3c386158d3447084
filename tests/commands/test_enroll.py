"""`hra enroll`, `hra forget` and `hra transcribe --guard`, as they are typed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import corpus
import jax
import newcomers
import numpy as np
import pytest
from etils import epath

from hra import claim, jobs, run, submodels
from hra.commands import main as cli


def _hra(verb: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-m", f"hra.commands.{verb}", *map(str, arguments)],
    env={**os.environ, "PYTHONPATH": str(Path(corpus.__file__).parent)},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A finished run, to which commands add in the order of the tests."""
  folder = tmp_path_factory.mktemp("enroll")
  data = corpus.prepared(folder)
  config = corpus.config(data, corpus.backbone_folder(folder, data))
  config.evaluate.guard_words = 2
  parts = run.assemble(config, folder / "run")
  jobs.finish(parts, jobs.train(parts, quiet=True))
  newcomers.write(folder / "new")
  return folder


def test_a_task_joins_is_transcribed_and_leaves(trained):
  workdir, told = trained / "run", trained / "told.json"
  done = _hra(
    "enroll",
    f"--workdir={workdir}",
    f"--source={trained / 'new/new.jsonl'}",
    "--init=nearest",
    "--steps=2",
    "--config.train.rows.learning_rate=0.02",
    f"--json={told}",
  )
  assert done.returncode == 0, done.stderr
  assert "zoe: starts from task" in done.stdout
  assert "backbone WER" in done.stdout
  task = json.loads(told.read_text())["tasks"]["zoe"]
  assert task["start"]["init"] == "nearest"
  assert task["dev"]["words"] == 2
  assert Path(task["submodel"]).is_file()
  enrolment = workdir / "enrolled" / "zoe"
  rows = json.loads((enrolment / "config.json").read_text())["config"]["train"]
  assert rows["rows"]["learning_rate"] == 0.02
  done = _hra("evaluate", f"--workdir={enrolment}")
  assert done.returncode == 0, done.stderr
  wave = trained / "new" / "zoe-0.wav"
  done = _hra("transcribe", f"--workdir={workdir}", "--task=zoe", wave)
  assert done.returncode == 0, done.stderr
  done = _hra("forget", f"--workdir={workdir}", "--task=zoe", f"--json={told}")
  assert done.returncode == 0, done.stderr
  assert "'zoe' is forgotten" in done.stdout
  assert json.loads(told.read_text())["shared"] is False
  assert not enrolment.exists()


@pytest.mark.slow  # its twins: growth/test_enrolment.py, test_recognizer.py
def test_who_is_no_better_than_the_backbone_is_answered_by_it(trained):
  """A wild row, and a verdict that says so."""
  workdir = trained / "run"
  folder = workdir / "submodels"
  anna = submodels.Store(folder)["anna"]
  wild = jax.tree.map(lambda leaf: np.full_like(leaf, 50.0), anna.row)
  values = dict(vars(anna), task="wild", row=wild)
  values["summary"] = {**anna.summary, "verdict": "not better"}
  submodels.save(folder, submodels.Submodel(**values))
  wave = trained / "new" / "zoe-0.wav"
  texts = {}
  for name, flags in {
    "bare": ("--task=",),
    "guarded": ("--task=wild",),
    "wild": ("--task=wild", "--noguard"),
  }.items():
    done = _hra("transcribe", f"--workdir={workdir}", *flags, wave)
    assert done.returncode == 0, done.stderr
    texts[name] = done.stdout
    notes = [line for line in done.stderr.splitlines() if "--noguard" in line]
    assert len(notes) == (name == "guarded")
  assert texts["guarded"] == texts["bare"]
  assert texts["wild"] != texts["bare"]
  (folder / "wild.safetensors").unlink()


@pytest.mark.slow  # its twins: growth/test_forgetting.py
def test_a_task_of_the_run_leaves_and_training_has_nothing_left(trained):
  workdir, anew = trained / "run", trained / "anew"
  done = _hra(
    "forget", f"--workdir={workdir}", "--task=anna", f"--retrain={anew}"
  )
  assert done.returncode == 0, done.stderr
  assert "shared parameters were trained with it" in done.stdout
  assert f"its recordings stay where they are: {trained}" in done.stdout
  assert json.loads((anew / "tasks.json").read_text())["tasks"] == [
    "bert/b",
    "cleo",
  ]
  experiment = trained / "experiment.py"
  experiment.write_text(
    "import corpus\nfrom pathlib import Path\n"
    "def get_config():\n"
    f"  config = corpus.config(Path({str(trained / 'prepared')!r}), "
    f"Path({str(trained / 'backbone')!r}))\n"
    "  config.evaluate.guard_words = 2\n  return config\n"
  )
  done = _hra("train", f"--config={experiment}", f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  assert "is finished" in done.stdout
  assert "training" not in done.stdout
  done = _hra("forget", f"--workdir={workdir}", "--task=anna")
  assert done.returncode == 0, done.stderr
  assert "already" in done.stdout


@pytest.mark.parametrize(
  ("verb", "arguments", "told"),
  [
    ("enroll", ["--workdir=/nowhere", "--source=x"], "/nowhere/config.json"),
    ("enroll", ["--source=x.jsonl"], "--workdir"),
    ("enroll", ["--workdir={run}"], "--source"),
    ("enroll", ["--workdir={run}", "--source=x.jsonl"], "x.jsonl"),
    ("enroll", ["--workdir={run}", "--source=x", "--init=far"], "nearest"),
    ("forget", ["--workdir={run}"], "--task"),
    ("forget", ["--workdir={run}", "--task=cle"], "'cleo'"),
  ],
)
def test_bad_input_is_one_clear_line(trained, verb, arguments, told):
  run_folder = str(trained / "run")
  done = _hra(verb, *(each.format(run=run_folder) for each in arguments))
  assert done.returncode == 2, done.stderr
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  assert len(lines) == 1
  assert lines[0].startswith(f"hra {verb}: ")
  assert told in lines[0]


@pytest.mark.parametrize(
  "verb", ["quickstart", "train", "evaluate", "enroll", "forget"]
)
def test_one_command_at_a_time_changes_a_run(trained, tmp_path, verb):
  """Nor does one that is refused say whose run it is."""
  workdir = epath.Path(tmp_path / "run")
  shutil.copytree(trained / "run", workdir)
  (workdir / "metrics.jsonl").unlink()  # as if it had hardly begun
  shutil.rmtree(workdir / "checkpoints")
  described = (workdir / "config.json").read_bytes()
  rest = {
    "train": [
      "--config=experiments/adapt.py",
      f"--config.data.path={trained / 'prepared'}",
      f"--config.backbone_path={trained / 'backbone'}",
    ],
    "enroll": [f"--source={trained / 'new/new.jsonl'}"],
    "forget": ["--task=bert/b"],
  }
  with claim.alone(workdir):
    done = _hra(verb, f"--workdir={workdir}", *rest.get(verb, ()))
  assert (workdir / "config.json").read_bytes() == described
  assert done.returncode == 2, done.stderr
  assert f"process {os.getpid()} on" in done.stderr
  assert "at work in it" in done.stderr


def test_both_say_that_they_go_on():
  assert {"enroll", "forget"} <= set(cli.RESUMED)
