"""Input that can't be used is refused before the first step, and can be mended."""

import copy
import json
from pathlib import Path

import corpus
import numpy as np
import pytest
import soundfile

from hra import jobs, run, scoring
from hra.data.dataset import open_split
from hra.data.prepare import prepare
from hra.dims import SAMPLE_RATE
from hra.errors import InputError


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  """`dora` of the dev split has no training data; `test` has the longest."""
  folder = tmp_path_factory.mktemp("refusals")
  manifests = corpus.write_manifests(folder / "raw")
  lines = manifests["dev"].read_text().splitlines()
  lines[-1] = json.dumps({**json.loads(lines[-1]), "speaker": "dora"})
  manifests["dev"].write_text("\n".join(lines) + "\n")
  line = json.loads(manifests["test"].read_text().splitlines()[0])
  path = manifests["test"].parent / line["audio_filepath"]
  noise = np.random.default_rng(1).standard_normal(11_500)
  soundfile.write(path, 0.1 * noise, SAMPLE_RATE)
  data = folder / "prepared"
  prepare(manifests, data)
  config = corpus.config(data, corpus.backbone_folder(folder, data))
  config.train.steps = 1
  return config


def _train(config, workdir: Path):
  return jobs.train(run.assemble(config, workdir), quiet=True)


def test_a_dev_split_of_unknown_tasks_is_refused_first(material, tmp_path):
  message = r"'dora'.*--split_by=sentence, or .*--config\.data\.dev_split"
  with pytest.raises(InputError, match=message):
    _train(material, tmp_path)
  assert not (tmp_path / "metrics.jsonl").exists()
  config = copy.deepcopy(material)
  config.data.dev_split = "none"
  assert int(_train(config, tmp_path).step) == 2


def test_a_split_without_recordings_of_the_tasks_is_refused(tmp_path):
  manifests = corpus.write_manifests(tmp_path / "raw")
  lines = manifests["test"].read_text().splitlines()
  others = [line for line in lines if json.loads(line)["speaker"] != "anna"]
  manifests["test"].write_text("\n".join(others) + "\n")
  data = tmp_path / "prepared"
  prepare(manifests, data)
  config = corpus.config(data, corpus.backbone_folder(tmp_path, data))
  config.data.tasks = ("anna",)
  parts = run.assemble(config, tmp_path / "run")
  with pytest.raises(InputError, match=r"split 'test'.*recordings.*none"):
    scoring.evaluate(parts, run.initial_state(parts), split="test")


@pytest.mark.parametrize(
  ("group", "field", "value"),
  [("space", "kind", "embedding"), ("adapter", "heads", "shared")],
)
def test_a_job_in_which_nothing_can_learn_is_refused(
  material, tmp_path, group, field, value
):
  config = copy.deepcopy(material)
  config.data.dev_split = "none"
  setattr(getattr(config, group), field, value)
  config.train.shared_part = 0.0
  with pytest.raises(InputError, match=r"shared_part.*none of 2 joint steps"):
    _train(config, tmp_path)
  assert not (tmp_path / "metrics.jsonl").exists()


def test_patience_that_nothing_could_end_is_refused(material, tmp_path):
  config = copy.deepcopy(material)
  config.data.dev_split = "test"
  config.train.shared_part, config.train.select = 1.0, "best"
  config.train.eval_every, config.train.patience = 1, 2
  with pytest.raises(InputError, match=r"patience.*lower .*shared_part"):
    _train(config, tmp_path)
  config.train.shared_part = 0.5
  assert int(_train(config, tmp_path).step) == 2


def test_who_owns_nothing_trains_what_is_shared_to_the_end(material, tmp_path):
  config = copy.deepcopy(material)
  config.data.dev_split = "none"
  assert config.train.shared_part == 0.5
  for heads, steps in (("personal", 1), ("shared", 2)):
    config.adapter.heads = heads
    parts = run.assemble(config, tmp_path / heads)
    plan = jobs.make_plan(parts, jobs.make_loader(parts))
    assert plan.frozen_from == steps


def test_a_dev_recording_that_is_too_long_is_refused_first(material, tmp_path):
  config = copy.deepcopy(material)
  config.data.dev_split = "test"
  longest = {
    split: open_split(config.data.path, split).samples.max() / SAMPLE_RATE
    for split in ("train", "test")
  }
  assert longest["train"] < longest["test"]
  config.data.max_seconds = float(longest["train"])
  with pytest.raises(InputError, match=r"data\.max_seconds = .*got 0\.\d\d s"):
    _train(config, tmp_path / "run")
  assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_refused_configuration_gives_way_until_a_step_is_done(
  material, tmp_path
):
  config = copy.deepcopy(material)
  config.data.dev_split = "none"
  config.data.max_seconds = 0.1
  with pytest.raises(InputError, match=r"raise data\.max_seconds"):
    _train(config, tmp_path)
  config.data.max_seconds = 30.0
  _train(config, tmp_path)
  assert run.reopen(tmp_path).config.data.max_seconds == 30.0
  config.data.max_seconds = (
    31.0  # which only refuses, as a longer test may need
  )
  run.assemble(config, tmp_path)
  assert run.reopen(tmp_path).config.data.max_seconds == 31.0
  config.train.max_bad_steps = 2
  with pytest.raises(InputError, match="another run's"):
    run.assemble(config, tmp_path)


def test_a_finished_job_is_judged_in_its_checkpoint(material, tmp_path):
  """Also where a checkpoint of the last step was there before."""
  config = copy.deepcopy(material)
  config.data.dev_split = "test"
  config.train.select, config.train.save_seconds = "best", 0.0
  trained = _train(config, tmp_path)
  kept = run.trained_state(run.reopen(tmp_path))
  for state in (trained, kept):
    assert state.progress.best_step_N.tolist() == [1, 1, 1]
  before = (tmp_path / "metrics.jsonl").read_text()
  assert int(_train(config, tmp_path).step) == 2
  assert (tmp_path / "metrics.jsonl").read_text() == before
