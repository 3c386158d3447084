"""Converted backbones are trained on: convert, prepare, train, transcribe.

Random originals of each family hear synthesised speakers; what is compared is the
loss on their dev sentences, which nothing was trained on.
"""

import dataclasses
import json
import string

import jax
import numpy as np
import originals
import pytest
import whispers
from originals import transformers

from hra import jobs, run
from hra.adapters import table
from hra.backbone.foreign.convert import convert
from hra.config import (
  AdapterConfig,
  Config,
  DataConfig,
  OptimizerConfig,
  PrepareConfig,
  SyntheticConfig,
  TrainConfig,
)
from hra.data.audio import decode
from hra.data.loader import EvaluationLoader
from hra.data.prepare import prepare
from hra.data.synthetic.corpus import synthesize
from hra.evaluate.recognizer import load_backbone
from hra.submodels import Store
from hra.train.gradients import make_gradients

pytest.importorskip("espeakng_loader")

LETTERS = tuple(string.ascii_lowercase + "'")
SPEECH = SyntheticConfig(
  speakers=4,
  train_utterances=16,
  dev_utterances=6,
  test_utterances=2,
  severity=0.5,
)
SIZES = {
  "lasr": {"hidden_size": 32, "num_attention_heads": 4},
  # Eight times fewer frames than mel would be too few for the letters.
  "parakeet": {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "subsampling_factor": 4,
  },
  "w2v_bert": {"hidden_size": 32, "num_attention_heads": 4},
  "whisper": {
    "d_model": 32,
    "max_source_positions": 50 * whispers.LONG,
    "max_target_positions": 96,
  },
}
ADAPTERS = {
  "hra": AdapterConfig(width=32, heads="both"),
  "residual": AdapterConfig(family="residual", width=8),
  "lora": AdapterConfig(family="lora", width=4),
}


STEPS = {
  "lasr": 40,
  "parakeet": 40,
  "w2v_bert": 20,  # whose frames are the most
  "whisper": 80,  # whose labels are the most
}
MOST_OF_BEFORE = {
  "lasr": 0.8,
  "parakeet": 0.8,
  "w2v_bert": 0.8,
  "whisper": 0.85,
}
"""What is left of the loss: random vectors for 320 labels, in and out, tell a random
Whisper's fewer apart, at whatever rate and however long."""
BOTH = {
  "hra": AdapterConfig(width=32, heads="both", stacks="both"),
  "residual": AdapterConfig(family="residual", width=8, stacks="both"),
  "lora": AdapterConfig(
    family="lora", width=4, stacks="both", sites=("attention", "feed_forward")
  ),
}
"""Of an encoder-decoder."""


def _save(folder, family):
  """A random original that spells in letters, or in bytes (Whisper)."""
  if family == "whisper":
    model = whispers.model(**SIZES[family])
    return whispers.save(folder, model, seconds=whispers.LONG)
  blank = 0 if family == "lasr" else len(LETTERS) + 3 - 1
  vocabulary = len(LETTERS) + (3 if family == "w2v_bert" else 4)
  if family == "parakeet":
    blank = vocabulary - 1
  model = originals.model(
    family, vocab_size=vocabulary, pad_token_id=blank, **SIZES[family]
  )
  model.save_pretrained(folder)
  originals.extractor(family).save_pretrained(folder)
  _tokenizer(folder, family, blank).save_pretrained(folder)
  return folder


def _tokenizer(folder, family, blank):
  if family == "w2v_bert":
    names = ["|", *LETTERS, "[UNK]"]
    names.insert(blank, "[PAD]")
    path = folder / "vocab.json"
    path.write_text(json.dumps({name: id for id, name in enumerate(names)}))
    return transformers.Wav2Vec2CTCTokenizer(
      str(path),
      pad_token="[PAD]",
      unk_token="[UNK]",
      bos_token=None,
      eos_token=None,
    )
  pieces = ["\u2581", *LETTERS, "<unk>", "</s>"]
  pieces.insert(blank, "<pad>")
  return transformers.ParakeetTokenizer(
    tokenizer_object=originals.unigram(pieces),
    pad_token="<pad>",
    unk_token="<unk>",
    eos_token="</s>",
  )


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
  folder = tmp_path_factory.mktemp("speech")
  return synthesize(folder, spec=SPEECH, progress=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory, speech):
  """A family -> its converted backbone and the speech, spelt by its tokenizer."""
  folder, found = tmp_path_factory.mktemp("made"), {}

  def of(family):
    if family not in found:
      backbone, data = folder / family, folder / f"{family}-data"
      original = folder / f"{family}-original"
      original.mkdir()
      convert(str(_save(original, family)), backbone)
      prepare(speech, data, config=PrepareConfig(jobs=1), tokenizer=backbone)
      found[family] = backbone, data
    return found[family]

  return of


def _config(backbone, data, adapter, *, rate, steps):
  optimizer = OptimizerConfig(learning_rate=rate, warmup_steps=5)
  return Config(
    backbone_path=str(backbone),
    adapter=adapter,
    data=DataConfig(
      path=str(data),
      tasks_per_batch=4,
      utterances_per_task=4,
      eval_batch=24,
      buckets=1,
    ),
    train=TrainConfig(
      steps=steps,
      shared_part=1.0,
      rows=optimizer,
      shared=dataclasses.replace(optimizer),
    ),
  )


def _dev_loss(parts, trained) -> float:
  """Nats a label on the dev split, each speaker by its own row."""
  loader = EvaluationLoader(
    parts.split("dev"),
    tokenizer=parts.backbone.tokenizer,
    table=parts.tasks,
    bounds=parts.bounds,
    config=parts.config.data,
  )
  gradients = make_gradients(parts.model, parts.space, policy=None)

  @jax.jit
  def of(shared, rows, frozen, batch):
    rows_K = table.gather(rows, batch.task_K)
    key = jax.random.key(0)
    found = gradients(
      shared, rows_K, frozen, batch, key=key, train_shared=False
    )
    return found.total_K.sum(), found.weight_K.sum()

  sums = [
    of(trained.shared, trained.rows, parts.frozen, batch)
    for batch, _ in loader.batches()
  ]
  total, weight = np.asarray(sums).sum(axis=0)
  assert weight > 400
  return total / weight


def _losses(made, workdir, family, adapter, *, rate=1e-2, steps=40):
  """(parts, dev loss of the backbone, of what was trained)."""
  adapters = BOTH if family == "whisper" else ADAPTERS
  config = _config(*made(family), adapters[adapter], rate=rate, steps=steps)
  parts = run.assemble(config, workdir)
  before = _dev_loss(parts, run.initial_state(parts))
  trained = jobs.train(parts, quiet=True)
  jobs.finish(parts, trained)
  return parts, before, _dev_loss(parts, trained)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("family", SIZES)
def test_lowers_the_dev_loss(made, tmp_path, family, adapter):
  _, before, after = _losses(
    made, tmp_path / "run", family, adapter, steps=STEPS[family]
  )
  print(family, adapter, before, after)
  assert after < MOST_OF_BEFORE[family] * before


def test_its_submodels_lower_the_dev_loss_and_transcribe(
  made, speech, tmp_path
):
  workdir = tmp_path / "run"
  parts, before, after = _losses(made, workdir, "lasr", "hra", steps=30)
  print(before, after)
  assert after < 0.8 * before
  backbone = load_backbone(str(made("lasr")[0]))
  line = json.loads(speech["test"].read_text().splitlines()[0])
  path = speech["test"].parent / line["audio_filepath"]
  wave = decode(path)
  store = Store(workdir / "submodels")
  bare, adapted = backbone.transcribe(
    [wave, wave], submodels=[None, store[parts.tasks[0]]], guard=False
  )
  assert bare != adapted
  assert set(bare + adapted) <= {*LETTERS, " "}


def test_at_a_rate_of_zero_nothing_is_learnt(made, tmp_path):
  _, before, after = _losses(
    made, tmp_path / "run", "lasr", "hra", rate=0.0, steps=2
  )
  assert after == pytest.approx(before, rel=1e-6)
