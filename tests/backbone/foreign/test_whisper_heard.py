"""Whisper as users meet it: texts, segments, long recordings, many speakers."""

import functools
import itertools

import jax
import numpy as np
import pytest
import whispers

import hra
from hra.adapters import families
from hra.backbone import store
from hra.backbone.prompted import Asked
from hra.config import AdapterConfig, ChunksConfig
from hra.errors import InputError
from hra.evaluate import stitching
from hra.evaluate.recognizer import Recognizer
from hra.evaluate.transcribe import heard
from hra.submodels import Submodel, shared_fingerprint

CHUNKS = ChunksConfig(overlap=0.4, batch=2)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
  return whispers.pair(tmp_path_factory.mktemp("whisper"), "small")[-1]


def _timed(stored):
  return Recognizer(store.asked(stored, Asked(timestamps=True)))


def _submodel(stored, task, *, stacks, seed):
  config = AdapterConfig(family="residual", width=2, stacks=stacks)
  adapter = families.build(config, stored.config)
  rng = np.random.default_rng(seed)
  row = jax.tree.map(
    lambda leaf: np.asarray(
      leaf + 2.0 * rng.standard_normal(leaf.shape), np.float32
    ),
    adapter.init_task(jax.random.key(0)),
  )
  return Submodel(
    task=task,
    adapter=config,
    row=row,
    shared={},
    backbone_fingerprint=stored.fingerprint,
    shared_fingerprint=shared_fingerprint({}),
    summary={},
  )


def test_texts_of_speakers_in_a_batch_are_theirs_alone(stored):
  recognizer = Recognizer(stored)
  submodels = [
    _submodel(stored, "anna", stacks="decoder", seed=1),
    None,
    _submodel(stored, "bob", stacks="both", seed=2),
  ]
  waves = whispers.waves((16_000, 16_000, 12_000))
  together = recognizer.transcribe(waves, submodels)
  alone = [
    recognizer.transcribe([wave], [submodel])[0]
    for wave, submodel in zip(waves, submodels, strict=True)
  ]
  assert together == alone
  assert together[0] != recognizer.transcribe(waves[:1])[0]
  assert not any("<|" in text for text in together)


def test_a_long_recording_is_its_pieces_joined(stored):
  recognizer = Recognizer(stored)
  (wave,) = whispers.waves((44_000,))
  (text,) = recognizer.transcribe([wave], chunks=CHUNKS)
  starts = (0, 9_600, 19_200, 28_160)
  pieces = [wave[start : start + 16_000] for start in starts]
  hear = functools.partial(heard, search=None)
  said = [
    each.labels_U[: each.length].tolist()
    for each in recognizer._run(hear, pieces, [None] * 4, guard=True)
  ]
  shared = [
    (before + 16_000 - after) / 16_000
    for before, after in itertools.pairwise(starts)
  ]
  joined = stitching.by_labels(said, shared)
  assert text == stored.tokenizer.decode(joined) != ""


def test_segments_of_a_long_recording_follow_one_another(stored):
  recognizer = _timed(stored)
  waves = whispers.waves((44_000, 16_000, 9_000))
  long, whole, short = recognizer.segments(waves, chunks=CHUNKS)
  for found, wave in zip((long, whole, short), waves, strict=True):
    assert found
    for each in found:
      assert 0 <= each.start <= each.end <= len(wave) / 16_000 + 1e-6
      assert each.text
    middles = [each.start + each.end for each in found]
    assert middles == sorted(middles)
  assert long[-1].end > 1.0
  texts = recognizer.transcribe(waves, chunks=CHUNKS)
  assert [len(text) > 0 for text in texts] == [True] * 3


def test_times_have_to_be_asked_for(stored):
  with pytest.raises(InputError, match=r"hra.Asked\(timestamps=True\)"):
    Recognizer(stored).segments(whispers.waves((9_000,)))
  assert hra.Asked is Asked
