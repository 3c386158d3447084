"""Where the backbone is what trains: its best checkpoint, its start."""

import copy
import json
import shutil

import corpus
import jax
import numpy as np
import pytest

from hra import jobs, run, scoring
from hra.backbone import store
from hra.checkpoint import Checkpoints
from hra.config import AdapterConfig
from hra.data.dataset import open_split
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  """All speakers as one task, a backbone that has begun, and its run."""
  folder = tmp_path_factory.mktemp("pretrain")
  data = corpus.prepared(folder)
  config = corpus.config(
    data,
    corpus.backbone_folder(folder, data),
    mode="pretrain",
    start="backbone",
    eval_every=2,
    keep_best=2,
  )
  config.adapter = AdapterConfig(family="none")
  config.data.grouping = "pooled"
  parts = run.assemble(config, folder / "whole")
  return config, parts, jobs.train(parts, quiet=True)


def _dev_wers(workdir) -> list[tuple[float, int]]:
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [
    (line["dev_wer"], line["step"]) for line in lines if "dev_wer" in line
  ]


def test_each_evaluation_is_a_checkpoint_and_the_best_is_exported(material):
  config, parts, last = material
  wers = _dev_wers(parts.workdir)
  assert [step for _, step in wers] == [2, 4, 6]
  assert int(last.step) == 6
  best = min(wers)[1]
  kept = Checkpoints(parts.workdir / "checkpoints", access="read")
  assert kept.best is not None
  config.train.select = "best"
  try:
    described = parts.workdir / "config.json"
    told = json.loads(described.read_text())
    told["config"]["train"]["select"] = "best"
    described.write_text(json.dumps(told))
    chosen = run.trained_state(run.reopen(parts.workdir))
  finally:
    config.train.select = "last"
    told["config"]["train"]["select"] = "last"
    described.write_text(json.dumps(told))
  assert int(chosen.step) == best


def test_fine_tuning_starts_from_the_backbone_and_leaves_it(material):
  config, parts, trained = material
  before = store.load(config.backbone_path).module
  fresh = run.initial_state(parts).shared["backbone"]
  jax.tree.map(np.testing.assert_array_equal, before, fresh)
  jax.tree.map(np.testing.assert_array_equal, before, parts.backbone.module)
  after = trained.shared["backbone"]
  moved = [
    np.any(np.asarray(a) != np.asarray(b))
    for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
  ]
  assert all(moved)


def test_fine_tuning_is_scored_beside_where_it_started(material):
  _, parts, trained = material
  results = scoring.evaluate(parts, trained, split="test")
  assert results["overall"]["backbone_wer"] is not None


def test_a_backbone_is_finished_when_it_is_exported(material):
  """So that training it again makes no figures of dev of those of test."""
  _, parts, trained = material
  folder = jobs.finish(parts, trained)
  assert jobs.is_finished(parts.workdir)
  (folder / "config.json").unlink()
  assert not jobs.is_finished(parts.workdir)
  jobs.finish(parts, trained)
  assert jobs.is_finished(parts.workdir)


def test_pretraining_goes_on_with_its_tokenizer_only(material, tmp_path):
  config = copy.deepcopy(material[0])
  config.train.start, config.train.steps = "random", 1
  data = tmp_path / "data"
  shutil.copytree(config.data.path, data)
  config.data.path = str(data)
  jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  texts = open_split(data, "train").texts
  other = Tokenizer.train([*texts, *texts[:3]], vocabulary=64, kind="char")
  assert other.vocabulary == Tokenizer.load(data / "tokenizer.model").vocabulary
  (data / "tokenizer.model").write_bytes(other.model)
  with pytest.raises(InputError, match=r"config\.json: backbone"):
    run.assemble(config, tmp_path / "run")


def test_a_backbone_that_is_not_finite_ends_the_job_with_an_error(
  material, tmp_path
):
  config = copy.deepcopy(material[0])
  config.train.shared.learning_rate = 1e38
  for _ in range(2):  # the same command meets the same end
    with pytest.raises(InputError, match=r"step \d.*finite.*max_bad_steps"):
      jobs.train(run.assemble(config, tmp_path), quiet=True)
  assert not (tmp_path / jobs.FINISHED).exists()
