"""What is told of a long recording while the rest of it is heard."""

import threading

import pytest
import serve_stores as stores
from decoding import CONFIGS

from hra.backbone import store
from hra.backbone.prompted import Asked
from hra.config import ChunksConfig
from hra.data.cutting import Piece
from hra.data.tokenizer import Tokenizer
from hra.evaluate.long import Way
from hra.evaluate.recognizer import Recognizer
from hra.serve.certain import Certain, whole_words
from hra.serve.interface import Request

FEW = {"batch_sizes": (2,), "bucket_seconds": (2.0,)}


@pytest.mark.parametrize(
  ("text", "whole"),
  [
    ("", ""),
    ("  ", ""),
    ("one", ""),
    ("one tw", "one"),
    ("one two ", "one"),
    (" one  two\n", " one"),
    ("one\ttwo three", "one\ttwo"),
  ],
)
def test_the_last_word_may_go_on(text, whole):
  assert whole_words(text) == whole


def _certain(heard, told):
  """Of pieces that say a word each, and make that of the one before certain."""

  def settle(pieces, heard, unit):
    before = []
    for _, each in zip(pieces, heard, strict=True):
      yield before
      before = each

  return Certain(
    [Piece(0, 1)] * len(heard),
    heard,
    told.append,
    way=Way(None, None, settle),
    unit=1,
    decode=lambda labels: " ".join(map(str, labels)),
  )


def test_pieces_that_are_heard_early_wait_for_those_before():
  heard = [None] * 5
  told = []
  certain = _certain(heard, told)
  for place, expected in (
    (1, []),
    (2, []),
    (0, ["0"]),
    (4, ["0"]),
    (3, ["0", "0 1 2"]),
  ):
    heard[place] = [place]
    certain.look()
    certain.look()
    assert told == expected


def test_threads_tell_what_grows():
  heard = [None] * 200
  told = []
  certain = _certain(heard, told)
  threads = [threading.Thread(target=certain.look) for _ in range(200)]
  for place, thread in enumerate(threads):
    heard[place] = [place]
    thread.start()
  for thread in threads:
    thread.join()
  certain.look()
  assert told == sorted(set(told), key=len)
  assert told[-1] == " ".join(map(str, range(198)))


@pytest.fixture
def wordy(monkeypatch):
  """Each label is a word: what is random has few spaces."""
  monkeypatch.setattr(
    Tokenizer, "decode", lambda _, ids: " ".join(f"w{id}" for id in ids)
  )


def _asked(engine, wave, task=None):
  """(what was told, and when it was of how many; the answer)."""
  told = []
  request = Request(wave, task, progress=told.append)
  answer = engine.submit(request).result(stores.TIMEOUT)
  return told, answer


def _grows(told, text):
  for before, after in zip(["", *told], told, strict=False):
    assert after.startswith(before)
    assert len(after) > len(before)
  for each in told:
    assert text.startswith(each)
    assert not text[len(each) :] or text[len(each)].isspace()


@pytest.mark.parametrize("name", ["ctc", "stateless", "tdt"])
def test_frames_make_words_certain(name, engine_of, tmp_path, wordy):
  changes = {"quiet": 2.0} if name != "ctc" else {}
  backbone = stores.recognizer(
    tmp_path, decoder=CONFIGS[name], **changes, **stores.NEAR
  )
  people = [stores.submodel(backbone, f"p{i}", i) for i in range(4)]
  engine = engine_of(stores.Shelf(*people), backbone=backbone, **FEW)
  wave = stores.wave(23.0, 4)
  counts = []
  for task in (None, "p0", "p1", "p2", "p3"):
    told, answer = _asked(engine, wave, task)
    alone = engine.submit(Request(wave, task)).result(stores.TIMEOUT)
    assert answer.text == alone.text
    _grows(told, answer.text)
    counts.append(len(told))
    assert _asked(engine, wave[:32_000], task)[0] == []
  assert sorted(counts)[-2] > 2, counts


@pytest.mark.parametrize("times", [False, True])
def test_labels_make_words_certain(times, engine_of, tmp_path, wordy):
  whispers = pytest.importorskip("whispers")
  stored = whispers.pair(tmp_path, "small")[-1]
  backbone = Recognizer(store.asked(stored, Asked(timestamps=times)))
  engine = engine_of(
    stores.Shelf(),
    backbone=backbone,
    batch_sizes=(2,),
    chunks=ChunksConfig(overlap=0.2, batch=2),
  )
  count = 0
  for wave in whispers.waves((120_000, 90_000), seed=3):
    told, answer = _asked(engine, wave)
    _grows(told, answer.text)
    count += len(told)
  assert count > 4, answer.text
