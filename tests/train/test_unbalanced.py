"""A job of unlike tasks, start to end: own steps, weights, resuming."""

import json
import os
import signal

import corpus
import jax
import numpy as np
import pytest

from hra import jobs, run
from hra.data.prepare import prepare
from hra.errors import InputError, Interrupted
from hra.submodels import Store
from hra.train import loop
from hra.train.optimizer import updates_done

KEPT = {"anna": 6, "bert/b": 1, "cleo": 3}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  """Speakers with 6, 1 and 3 recordings; own steps by their number."""
  folder = tmp_path_factory.mktemp("unbalanced")
  manifests = corpus.write_manifests(folder / "raw")
  left = dict(KEPT)
  kept = []
  for line in manifests["train"].read_text().splitlines():
    speaker = json.loads(line)["speaker"]
    left[speaker] -= 1
    if left[speaker] >= 0:
      kept.append(line)
  manifests["train"].write_text("\n".join(kept) + "\n")
  data = folder / "prepared"
  prepare(manifests, data)
  config = corpus.config(data, corpus.backbone_folder(folder, data))
  config.data.temperature = 1.0
  config.data.reference_utterances = 6
  config.data.max_task_utterances = 5
  config.data.balance = 0.5
  weights = folder / "weights.json"
  weights.write_text(json.dumps({"cleo": 0.25}))
  config.data.task_weights = str(weights)
  config.train.rows.warmup_steps = 2
  return config, folder


@pytest.fixture(scope="module")
def whole(material):
  config, folder = material
  parts = run.assemble(config, folder / "whole")
  return parts, jobs.train(parts, quiet=True)


def test_own_steps_follow_the_data_and_are_exported(whole):
  parts, trained = whole
  assert parts.tasks == ("anna", "bert/b", "cleo")
  assert updates_done(trained.rows_optimizer).tolist() == [5, 1, 3]
  store = Store(jobs.export(parts, trained))
  told = {name: store[name].summary["own_steps"] for name in store}
  assert told == {"anna": 5, "bert/b": 1, "cleo": 3}


def test_the_terminal_says_what_is_not_alike(material, tmp_path, capsys):
  config, _ = material
  jobs.train(run.assemble(config, tmp_path))
  assert (
    "own steps 1 to 5; caps leave out 1 of 10 utterances; weights 0.354 to 2.45"
    in capsys.readouterr().out
  )


def test_an_unbalanced_job_resumes_bit_for_bit(
  material, whole, tmp_path, monkeypatch
):
  config, _ = material
  add = loop._Window.add
  seen = []

  def add_and_signal(self, metrics, batch):
    add(self, metrics, batch)
    seen.append(batch)
    if len(seen) == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(loop._Window, "add", add_and_signal)
  with pytest.raises(Interrupted):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  again = jobs.train(run.assemble(config, tmp_path), quiet=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    whole[1],
    again,
  )


def test_a_run_goes_on_with_its_first_weights_only(material, whole):
  config, folder = material
  kept = json.loads((folder / "whole" / "task_weights.json").read_text())
  assert kept == {"cleo": 0.25}
  path = folder / "weights.json"
  before = path.read_text()
  path.write_text(json.dumps({"cleo": 0.5}))
  with pytest.raises(InputError, match="weights that the run began with"):
    jobs.train(run.assemble(config, folder / "whole"), quiet=True)
  path.write_text(before)
