"""A job of unlike tasks, start to end: own steps, weights, resuming."""

import copy
import json
import os
import shutil
import signal

import corpus
import jax
import numpy as np
import pytest
import soundfile

from hra import jobs, run, scoring
from hra.config import MultistyleConfig
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
  store = Store(jobs.finish(parts, trained))
  told = {name: store[name].summary["own_steps"] for name in store}
  assert told == {"anna": 5, "bert/b": 1, "cleo": 3}


def test_the_terminal_says_what_is_not_alike(material, tmp_path, capsys):
  config, _ = material
  jobs.train(run.assemble(config, tmp_path))
  assert (
    "own steps 1 to 5; caps leave out 1 of 10 utterances; weights 0.144 to 1"
    in capsys.readouterr().out
  )


def test_an_unbalanced_job_resumes_bit_for_bit(
  material, whole, tmp_path, monkeypatch
):
  config, _ = material
  add = loop.Window.add
  seen = []

  def add_and_signal(self, metrics, batch):
    add(self, metrics, batch)
    seen.append(batch)
    if len(seen) == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(loop.Window, "add", add_and_signal)
  with pytest.raises(Interrupted):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  again = jobs.train(run.assemble(config, tmp_path), quiet=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    whole[1],
    again,
  )


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_goes_on_with_its_first_weights_only(material, whole, finished):
  config, folder = material
  if finished:
    jobs.finish(*whole)
  kept = json.loads((folder / "whole" / "task_weights.json").read_text())
  assert kept == {"cleo": 0.25}
  path = folder / "weights.json"
  before = path.read_text()
  path.write_text(json.dumps({"cleo": 0.5}))
  with pytest.raises(InputError, match="weights that the run began with"):
    jobs.train(run.assemble(config, folder / "whole"), quiet=True)
  path.write_text(before)


def test_a_finished_run_refuses_weights_that_stand_twice(material, whole):
  config, folder = material
  jobs.finish(*whole)
  path = folder / "weights.json"
  before = path.read_text()
  path.write_text('{"cleo": 0.25, "cleo": 0.5}')
  with pytest.raises(InputError, match="each name once"):
    jobs.train(run.assemble(config, folder / "whole"), quiet=True)
  path.write_text(before)


def test_results_tell_what_training_used(material, whole):
  parts, trained = whole
  told = json.loads((parts.workdir / "balance.json").read_text())["tasks"]
  assert [each["own_steps"] for each in told.values()] == [5, 1, 3]
  assert max(each["weight"] for each in told.values()) == 1
  assert told["bert/b"]["seconds"] == pytest.approx(
    parts.train_split.samples[parts.train_split.tasks.index("bert/b")] / 16_000
  )
  results = scoring.evaluate(parts, trained, split="test")
  used = {
    name: task["train_utterances"] for name, task in results["tasks"].items()
  }
  assert used == {"anna": 5, "bert/b": 1, "cleo": 3}
  (parts.workdir / "balance.json").unlink()
  results = scoring.evaluate(parts, trained, split="test")
  assert results["tasks"]["anna"]["train_utterances"] == 6


@pytest.fixture
def noisy(material, tmp_path, monkeypatch):
  """A job with recorded noise, of which each speaker has another part."""
  monkeypatch.setenv("HRA_CACHE", str(tmp_path / "cache"))
  (tmp_path / "noise").mkdir()
  wave = 0.1 * np.random.default_rng(0).standard_normal(3000)
  soundfile.write(tmp_path / "noise" / "hum.wav", wave, 16_000)
  parts = tmp_path / "parts.json"
  parts.write_text(json.dumps({"anna": 1.0, "cleo": 0.0}))
  config = copy.deepcopy(material[0])
  config.train.steps = 1
  config.data.multistyle = MultistyleConfig(
    noise="files",
    noise_files=os.path.relpath(tmp_path / "noise"),
    parts=os.path.relpath(parts),
  )
  return config, tmp_path


def test_a_run_goes_on_with_its_first_noise_only(noisy):
  config, folder = noisy
  parts = run.assemble(config, folder / "run")
  style = parts.config.data.multistyle
  assert style.noise_files == str(folder / "noise")
  assert style.parts == str(folder / "parts.json")
  jobs.train(parts, quiet=True)
  kept = json.loads((folder / "run" / "task_parts.json").read_text())
  assert kept == {"anna": 1.0, "cleo": 0.0}
  hum = folder / "noise" / "hum.wav"
  before = hum.read_bytes()
  soundfile.write(hum, np.full(2000, 0.1), 16_000)
  with pytest.raises(InputError, match=r"noise_files: .*that the run began"):
    jobs.train(run.assemble(config, folder / "run"), quiet=True)
  hum.write_bytes(before)
  (folder / "parts.json").write_text("{}")
  with pytest.raises(InputError, match="parts that the run began with"):
    jobs.train(run.assemble(config, folder / "run"), quiet=True)


def test_a_finished_run_needs_its_noise_no_more(noisy):
  config, folder = noisy
  parts = run.assemble(config, folder / "run")
  jobs.finish(parts, jobs.train(parts, quiet=True))
  shutil.rmtree(folder / "noise")
  (folder / "parts.json").unlink()
  parts = run.reopen(folder / "run")
  scoring.evaluate(parts, jobs.train(parts, quiet=True), split="test")


def test_noise_that_is_gone_is_told_before_training(noisy):
  config, folder = noisy
  shutil.rmtree(folder / "noise")
  parts = run.assemble(config, folder / "run")
  with pytest.raises(InputError, match=r"noise: expected a folder or a man"):
    jobs.train(parts, quiet=True)
  assert not (folder / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
  ("first", "then"), [({}, {"cleo": 2}), ({"cleo": 2}, {})]
)
def test_weights_that_name_nobody_are_kept_too(material, tmp_path, first, then):
  config = copy.deepcopy(material[0])
  path = tmp_path / "weights.json"
  path.write_text(json.dumps(first))
  config.data.task_weights = os.path.relpath(path)
  config.train.steps = 1
  parts = run.assemble(config, tmp_path / "run")
  assert parts.config.data.task_weights == str(path)
  jobs.train(parts, quiet=True)
  path.write_text(json.dumps(then))
  with pytest.raises(InputError, match="weights that the run began with"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
