"""Long recordings piece by piece: as in one piece, whoever's, in bounded batches."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile
import tiny
from decoding import CONFIGS

from hra import config_tree
from hra.adapters import families
from hra.backbone import store
from hra.config import ChunksConfig, SyntheticConfig
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError
from hra.evaluate import long
from hra.evaluate.recognizer import load_backbone
from hra.submodels import Submodel

CHUNKS = ChunksConfig(seconds=4.0, overlap=2.0, batch=4)
WHOLE = ChunksConfig(seconds=0)
NEAR = {"causal": True, "left_context": 2}
"""What is half a second away is not heard: pieces are as good as the whole."""


def _recognizer(folder, *, quiet=0.0, **changes):
  frontend = dataclasses.replace(tiny.FRONTEND, normalize="none")
  backbone = jax.tree.map(lambda leaf: 2 * leaf, tiny.backbone(**changes))
  if quiet:
    bias = backbone.head.output.bias
    bias[...] = bias[...].at[0].add(quiet)
  tokenizer = Tokenizer.train(["abcde edcba"], vocabulary=8, kind="char")
  store.save(folder, backbone, frontend=frontend, tokenizer=tokenizer, about={})
  return load_backbone(folder)


@pytest.fixture(scope="module")
def near(tmp_path_factory):
  return _recognizer(tmp_path_factory.mktemp("near"), **NEAR)


def _wave(seconds, seed=0):
  """Noise of a colour that changes four times a second."""
  rng = np.random.default_rng(seed)
  parts = []
  for _ in range(round(4 * seconds)):
    tone = np.sin(np.arange(4000) * rng.uniform(0.05, 2))
    parts.append(rng.uniform(0.01, 0.3) * tone)
  noise = 1e-3 * rng.standard_normal(4000 * len(parts))
  return (np.concatenate(parts) + noise).astype(np.float32)


def _submodel(recognizer, seed):
  built = families.build(
    tiny.ADAPTER, recognizer.stored.config, mels=tiny.FRONTEND.num_mels
  )
  rng = np.random.default_rng(seed)
  return Submodel(
    task=f"task {seed}",
    adapter=tiny.ADAPTER,
    row=jax.tree.map(
      lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
      jax.eval_shape(built.init_task, jax.random.key(0)),
    ),
    shared=jax.device_get(built.init_shared(jax.random.key(5))),
    backbone_fingerprint=recognizer.stored.fingerprint,
    shared_fingerprint="",
    summary={},
  )


def test_pieces_say_what_the_whole_says_to_whoever_they_belong(near):
  waves = [_wave(21.3), _wave(1), _wave(9.8, seed=1), _wave(3.9, seed=2)]
  chosen = [_submodel(near, 1), None, _submodel(near, 2), _submodel(near, 1)]
  expected = near.transcribe(waves, chosen, chunks=WHOLE)
  assert near.transcribe(waves, chosen, chunks=CHUNKS) == expected
  assert len(set(expected[0])) > 2
  assert len(expected[0]) > 20
  bare = near.transcribe(waves[:1], chunks=CHUNKS)
  assert bare == near.transcribe(waves[:1], chunks=WHOLE)
  assert bare[0] != expected[0]


def test_a_recording_of_one_piece_is_heard_as_ever(near, monkeypatch):
  way = long.WAYS["ctc"]._replace(hear=lambda *_: pytest.fail("in pieces"))
  monkeypatch.setitem(long.WAYS, "ctc", way)
  waves = [_wave(4), _wave(1)]
  texts = near.transcribe(waves, chunks=CHUNKS)
  assert texts == near.transcribe(waves, chunks=WHOLE)
  assert near.transcribe([], chunks=CHUNKS) == []


def test_pieces_come_in_batches_of_one_shape(near, monkeypatch):
  way, shapes = long.WAYS["ctc"], []

  def hear(model, *given):
    shapes.append(given[-2].shape)
    return way.hear(model, *given)

  monkeypatch.setitem(long.WAYS, "ctc", way._replace(hear=hear))
  near.transcribe([_wave(21), _wave(7)], chunks=CHUNKS)
  assert shapes == [(4, 64_000)] * 4  # 10 pieces of 21 s, 3 of 7 s
  del shapes[:]
  near.transcribe([_wave(5)], chunks=CHUNKS)
  assert shapes == [(2, 64_000)]


@pytest.mark.parametrize(
  ("name", "quiet", "sparing"), [("stateless", 1.0, False), ("tdt", 3.0, True)]
)
def test_transducers_are_heard_in_pieces(name, quiet, sparing, tmp_path):
  """Each piece begins anew, and says what it says alone, at its place."""
  recognizer = _recognizer(tmp_path, quiet=quiet, decoder=CONFIGS[name], **NEAR)
  wave = _wave(10)
  text = recognizer.transcribe([wave], chunks=CHUNKS)[0]
  first = recognizer.transcribe([wave[:64_000]], chunks=WHOLE)[0]
  assert text[:4] == first[:4]
  assert len(text) > 1.5 * len(first) > 0
  if sparing:  # others have said all that they may before the last seam
    last = recognizer.transcribe([wave[-64_000:]], chunks=WHOLE)[0]
    assert text[-10:] == last[-10:]


def test_las_hears_recordings_whole(tmp_path):
  recognizer = _recognizer(tmp_path, decoder=CONFIGS["las"])
  assert long.cutting(recognizer.stored, CHUNKS, greedy=True) is None
  wave = _wave(6)
  texts = recognizer.transcribe([wave], chunks=CHUNKS)
  assert texts == recognizer.transcribe([wave], chunks=WHOLE)


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"subsampling": "dense_convolution"},
    {"subsampling": "separable", "subsampling_halvings": 3},
    {
      "subsampling": "projection",
      "subsampling_halvings": 0,
      "subsampling_channels": 32,
    },
  ],
)
def test_frames_are_as_long_as_cutting_takes_them_to_be(changes, tmp_path):
  recognizer = _recognizer(tmp_path, **changes)
  cutting = long.cutting(recognizer.stored, CHUNKS, greedy=True)
  (heard,) = recognizer._run(cutting.way.hear, [_wave(8)], [None], guard=True)
  assert abs(int(heard.length) - 8 * 16_000 / cutting.unit) <= 3
  assert cutting.size % cutting.unit == cutting.overlap % cutting.unit == 0


@pytest.mark.parametrize(
  ("chunks", "field"),
  [
    (ChunksConfig(seconds=4, overlap=2.1), "overlap"),
    (ChunksConfig(overlap=-1), "overlap"),
    (ChunksConfig(seconds=-1), "seconds"),
    (ChunksConfig(batch=0), "batch"),
  ],
)
def test_pieces_that_make_no_sense(chunks, field):
  with pytest.raises(InputError, match=field):
    config_tree.validate(chunks, path="chunks")


@pytest.fixture(scope="module")
def speech():
  """(sentences of a voice that the bundled backbone knows, their texts)."""
  pytest.importorskip("espeakng_loader")
  from hra.data.synthetic import corpus, espeak

  spec = SyntheticConfig(
    population="typical",
    speakers=1,
    train_utterances=16,
    dev_utterances=1,
    test_utterances=1,
  )
  speakers = corpus.cast(spec)
  told = [each for each in corpus.plan(spec) if each.split == "train"]
  with espeak.Espeak() as engine:
    waves = [
      corpus.render(
        each, speaker=speakers[each.speaker], spec=spec, espeak=engine
      )
      for each in told
    ]
  rng = np.random.default_rng(0)
  waves = [np.pad(each, (0, int(rng.uniform(2e3, 8e3)))) for each in waves]
  return [each / np.float32(32_768) for each in waves], [t.text for t in told]


def _wrong(reference, text):
  """Letters, spaces aside: between sentences this backbone says none."""
  reference, text = (each.replace(" ", "") for each in (reference, text))
  row = list(range(len(text) + 1))
  for i, wanted in enumerate(reference, 1):
    before, row[0] = row[0], i
    for j, found in enumerate(text, 1):
      before, row[j] = (
        row[j],
        min(row[j] + 1, row[j - 1] + 1, before + (wanted != found)),
      )
  return row[-1] / len(reference)


def test_speech_in_pieces_is_understood_no_worse_than_whole(speech):
  """The backbone knows single sentences: a long recording is beyond it."""
  waves, texts = speech
  recognizer = load_backbone("tiny")
  assert recognizer.transcribe(waves[:4]) == texts[:4]
  wave, reference = np.concatenate(waves), " ".join(texts)
  chunks = ChunksConfig(seconds=10, overlap=4, batch=4)
  whole = _wrong(reference, *recognizer.transcribe([wave], chunks=WHOLE))
  pieces = _wrong(reference, *recognizer.transcribe([wave], chunks=chunks))
  print(whole, pieces)
  assert pieces < 0.25
  assert pieces <= whole


def test_minutes_of_mp3_by_command(tmp_path):
  path = tmp_path / "long.mp3"
  soundfile.write(path, _wave(200), 16_000, format="MP3")
  done = subprocess.run(
    [sys.executable, "-m", "hra.commands.transcribe", "--backbone=tiny", path],
    env=dict(os.environ),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(f"{path}\t")
