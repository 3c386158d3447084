"""What a backbone hears and says at most, before anything is trained."""

import dataclasses

import corpus
import jax
import pytest

from hra import jobs, run, scoring
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.config import (
  BackboneConfig,
  Config,
  DecoderConfig,
  TransformerConfig,
)
from hra.data.dataset import open_split
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError
from hra.features.frontend import PRESETS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  return corpus.prepared(tmp_path_factory.mktemp("run"))


def _assembled(data, folder, *, samples, places=20):
  """A run on an encoder-decoder that hears so many samples."""
  tokenizer = Tokenizer.load(data)
  config = BackboneConfig(
    encoder="transformer",
    width=8,
    layers=1,
    heads=2,
    feed_forward=8,
    subsampling="half",
    subsampling_halvings=1,
    vocabulary=tokenizer.vocabulary,
    transformer=TransformerConfig(frames=samples // 320),
    decoder=DecoderConfig(
      kind="transformer", layers=1, heads=2, feed_forward=8, places=places
    ),
  )
  make = jax.jit(lambda key: Backbone(config, mels=8, key=key))
  store.save(
    folder / "backbone",
    make(jax.random.key(0)),
    frontend=dataclasses.replace(
      PRESETS["whisper80"], num_mels=8, pad_to=samples
    ),
    tokenizer=tokenizer,
    about={},
  )
  asked = corpus.config(data, folder / "backbone")
  asked.data.bucket_seconds = ()
  return run.assemble(asked, folder / "run")


def test_recordings_that_are_not_heard_whole_are_refused(data, tmp_path):
  """By their number, before the run's folder is anybody's."""
  samples = open_split(data, "train").samples
  count = (samples > 9600).sum()
  assert 0 < count < len(samples)
  with pytest.raises(InputError) as refused:
    _assembled(data, tmp_path, samples=9600)
  assert str(refused.value) == (
    "split 'train': expected recordings of at most 0.6 s, which is all that the "
    f"backbone hears, got {count} of {len(samples)} that are longer, up to "
    f"{samples.max() / 16_000:.3f} s; cut them, or prepare the data without "
    "them: hra prepare --max_seconds=0.59 --skip_bad"
  )
  assert not (tmp_path / "run").exists()


def test_buckets_end_where_hearing_does(data, tmp_path):
  longest = int(open_split(data, "train").samples.max())
  most = -(-longest // 320) * 320
  assert most % 1280  # where a bucket would end
  parts = _assembled(data, tmp_path, samples=most)
  assert parts.bounds[-1] == most
  assert run.reopen(parts.workdir).bounds == parts.bounds
  less = dataclasses.replace(parts.backbone.frontend, pad_to=8000)
  deafer = parts._replace(
    backbone=dataclasses.replace(parts.backbone, frontend=less)
  )
  with pytest.raises(InputError, match=r"split 'dev'.*at most 0\.5 s.*6 of 6"):
    scoring.DevSplit(deafer)


def test_transcripts_that_are_not_said_whole_are_left_out(data, tmp_path):
  """A prompt of one label, and one for each character."""
  parts = _assembled(data, tmp_path, samples=16_000, places=6)
  split = parts.train_split
  longer = {
    id for id, text in zip(split.ids, split.texts, strict=True) if len(text) > 5
  }
  loader = jobs.make_loader(parts)
  assert set(loader.roster.unspoken) == longer
  assert 0 < len(longer) < len(split)
  assert any(
    line.startswith(f"left out {len(longer)} utterances") and "5 labels" in line
    for line in loader.roster.describe()
  )
  for batch in loader.batches():
    assert batch.label_lengths_KB.max() <= 5


def test_a_backbone_that_is_only_described_is_not_trained_on(tmp_path):
  with pytest.raises(InputError, match=r"config\.backbone_path"):
    run.assemble(Config(backbone_path=""), tmp_path)
