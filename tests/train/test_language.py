"""Training language models: what is read, resumed, judged and written."""

import dataclasses
import gzip
import json
import math
import signal

import corpus
import jax
import numpy as np
import pytest

from hra import language_jobs, language_store, run
from hra.checkpoint import Checkpoints
from hra.config import (
  Config,
  LanguageModelConfig,
  OptimizerConfig,
  SentencesConfig,
  TrainConfig,
)
from hra.data import sentences
from hra.data.tokenizer import Tokenizer
from hra.decoders import language_model
from hra.errors import InputError, Interrupted
from hra.train import language
from hra.train.interrupt import Signals, Stop

TEXT = ("the cat sat on the mat", "a dog", "the dog sat", "on a mat", "cats")
DEV = ("the cat sat on the mat", "a cat")
STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("language")
  tokenizer = Tokenizer.train(TEXT + DEV, vocabulary=32, kind="char")
  tokenizer.save(folder / "tokenizer.model")
  (folder / "text.txt").write_text("\n".join(TEXT * 4) + "\n")
  (folder / "dev.txt.gz").write_bytes(gzip.compress("\n".join(DEV).encode()))
  return folder


def _config(folder, **train):
  return Config(
    tokenizer=str(folder / "tokenizer.model"),
    language_model=LanguageModelConfig(width=16, layers=1),
    sentences=SentencesConfig(
      text=str(folder / "text.txt"),
      dev_text=str(folder / "dev.txt.gz"),
      sentences_per_batch=8,
      buckets=2,
    ),
    train=TrainConfig(
      mode="language_model",
      steps=STEPS,
      eval_every=4,
      log_every=3,
      shared=OptimizerConfig(learning_rate=0.03),
      **train,
    ),
  )


def _trained(config, workdir):
  parts = language_jobs.assemble(config, workdir)
  return parts, language_jobs.train(parts, quiet=True)


def _lines(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def _judged(workdir):
  """[(step, nats for each label)]."""
  return [
    (line["step"], line["dev_loss"])
    for line in _lines(workdir)
    if "dev_loss" in line
  ]


@pytest.fixture(scope="module")
def whole(folder):
  return _trained(_config(folder), folder / "whole")


def test_it_learns_and_its_folder_says_what_it_says(whole):
  parts, written = whole
  losses = [line["loss"] for line in _lines(parts.workdir) if "loss" in line]
  judged = _judged(parts.workdir)
  assert len(losses) == 4
  assert losses[-1] < 0.9 * losses[0]
  assert [step for step, _ in judged] == [4, 8, 12]
  stored = language_store.load(written, tokenizer=parts.tokenizer)
  assert stored.about["dev_loss"] == pytest.approx(judged[-1][1], rel=1e-6)
  total = weight = 0.0
  for text in DEV:
    labels = np.array(parts.tokenizer.encode(text))
    found = language_model.loss(stored.module, labels, len(labels))
    total, weight = total + float(found.total), weight + float(found.weight)
  assert total / weight == pytest.approx(judged[-1][1], rel=1e-5)
  assert weight == sum(len(text) + 1 for text in DEV)
  perplexity = _lines(parts.workdir)[-1]["dev_perplexity"]
  assert perplexity == pytest.approx(math.exp(judged[-1][1]))


def test_what_is_finished_is_not_trained_again(folder, whole):
  parts, written = whole
  before = (written / "model.safetensors").read_bytes()
  parts, again = _trained(_config(folder), folder / "whole")
  assert again == written
  assert language_jobs.is_finished(parts)
  assert (written / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("after", [4, 7])
def test_it_goes_on_bit_for_bit(folder, whole, monkeypatch, after, tmp_path):
  """Stopped where it would be judged, and elsewhere."""
  parts, written = whole
  count = []

  def heed(self):
    count.append(0)
    if len(count) == after:
      self.first = signal.SIGTERM
      raise Stop

  with monkeypatch.context() as patch:
    patch.setattr(Signals, "heed", heed)
    with pytest.raises(Interrupted, match=f"at step {after} of {STEPS}"):
      _trained(_config(folder), tmp_path / "run")
  _, resumed = _trained(_config(folder), tmp_path / "run")
  first, second = (
    (each / "model.safetensors").read_bytes() for each in (written, resumed)
  )
  assert first == second

  ours, theirs = map(_judged, (tmp_path / "run", parts.workdir))
  assert ours == theirs


def test_the_best_is_what_is_written(folder, tmp_path):
  """A rate that grows until it makes things worse."""
  config = _config(folder, select="best", keep=1)
  config.train.shared = OptimizerConfig(
    learning_rate=3.0, schedule="linear", warmup_steps=STEPS
  )
  parts, written = _trained(config, tmp_path / "run")
  judged = {loss: step for step, loss in _judged(parts.workdir)}
  assert judged[min(judged)] < STEPS
  stored = language_store.load(written)
  assert stored.about["dev_loss"] == pytest.approx(min(judged), rel=1e-6)
  assert stored.about["steps"] == judged[min(judged)]
  kept = Checkpoints(
    parts.workdir / "checkpoints", metric="dev_loss", access="read"
  )
  assert judged[min(judged)] in kept.steps
  kept.close()


def test_what_is_not_finite_changes_nothing(folder, whole):
  parts, _ = whole
  adamw = language_jobs.optimizer.build(b1=0.9, b2=0.999)
  model = language_jobs._fresh_model(parts)
  settings = language_jobs.settings(OptimizerConfig(), steps=4)
  step = jax.jit(language.make_step(adamw, settings))
  state = language.init(model, adamw)
  moved, metrics = step(state, parts.loader[0])
  assert metrics.loss.weight > 0
  assert int(moved.skipped) == 0
  broken = jax.tree.map(lambda leaf: leaf, model)
  broken.labels.output.bias[...] = np.nan
  state = language.init(broken, adamw)
  after, metrics = step(state, parts.loader[0])
  assert (int(after.step), int(after.skipped)) == (1, 1)
  assert metrics.loss.weight == 0
  jax.tree.map(
    np.testing.assert_array_equal,
    (after.model, after.optimizer),
    (state.model, state.optimizer),
  )


def test_a_run_that_diverges_says_so(folder, tmp_path):
  config = _config(folder)
  config.train.shared = OptimizerConfig(learning_rate=1e38, clip_norm=0.0)
  with pytest.raises(InputError, match="lower learning rate"):
    _trained(config, tmp_path / "run")


def test_transcripts_are_read_where_no_text_is_named(tmp_path):
  data = corpus.prepared(tmp_path)
  config = _config(tmp_path)
  config.tokenizer = str(data / "tokenizer.model")
  config.data.path = str(data)
  config.sentences.text = config.sentences.dev_text = ""
  parts = language_jobs.assemble(config, tmp_path / "run")
  assert len(parts.train.lengths_N) == 18
  assert parts.dev is not None
  assert len(parts.dev.lengths_N) == 6
  with pytest.raises(InputError, match="one of a language model"):
    run.reopen(tmp_path / "run")


def test_a_run_is_found_from_any_folder(folder, tmp_path, monkeypatch):
  config = _config(folder)
  config.tokenizer, config.sentences.text = "tokenizer.model", "text.txt"
  monkeypatch.chdir(folder)
  parts = language_jobs.assemble(config, tmp_path / "run")
  monkeypatch.chdir(tmp_path)
  again = language_jobs.assemble(parts.config, tmp_path / "run")
  assert again.config == parts.config
  assert again.config.tokenizer == str(folder / "tokenizer.model")


def test_an_epoch_has_each_sentence_once_and_the_rest_is_told(folder):
  tokenizer = Tokenizer.load(folder / "tokenizer.model")
  read = sentences.encode([*TEXT, "", "?!"], tokenizer, most=10, where="here")
  kept = [text for text in TEXT if len(text) <= 10]
  assert (len(read.lengths_N), read.too_long) == (3, 2)
  loader = sentences.SentenceLoader(read, batch=2, buckets=2, seed=0)
  found = []
  for step in range(loader.steps_per_epoch):
    batch = loader[step]
    for labels_U, length in zip(*batch, strict=True):
      assert not labels_U[length:].any()
      if length:
        found.append(tokenizer.decode(labels_U[:length].tolist()))
  assert sorted(found) == sorted(kept)
  whole = [*sentences.evaluation_batches(read, batch=2, bounds=(8,))]
  assert sum(int((batch.lengths_B > 0).sum()) for batch in whole) == 3


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"text": "no.txt"}, "no such file"),
    ({"max_labels": 1}, "sentences of 1 to 1 labels"),
    ({"dev_text": ""}, "'last'"),
  ],
)
def test_what_can_not_be_read_is_refused(folder, tmp_path, changes, says):
  config = _config(folder, select="best")
  config.sentences = dataclasses.replace(config.sentences, **changes)
  with pytest.raises(InputError, match=says):
    language_jobs.assemble(config, tmp_path / "run")
  bad = tmp_path / "bad.txt"
  bad.write_bytes(b"good\n\xff\n")
  with pytest.raises(InputError, match=r"bad.txt:2: expected UTF-8"):
    [*sentences.read_lines(bad)]


def test_a_folder_of_another_tokenizer_is_refused(folder, whole, tmp_path):
  _, written = whole
  other = Tokenizer.train(["xyz"], vocabulary=8, kind="char")
  with pytest.raises(InputError, match="the backbone's tokenizer"):
    language_store.load(written, tokenizer=other)
  with pytest.raises(InputError, match="a language model's folder"):
    language_store.load(tmp_path)
