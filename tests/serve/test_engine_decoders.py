"""Every kind of decoder by the engine: as offline, with what it knows of times."""

import numpy as np
import pytest
import serve_stores as stores
from decoding import CONFIGS

from hra.backbone import store
from hra.backbone.prompted import Asked
from hra.config import AdapterConfig, ChunksConfig
from hra.decoders.beam import Weights
from hra.evaluate.recognizer import Recognizer
from hra.evaluate.search import Search
from hra.serve.interface import Request, TooLong

FEW = {"batch_sizes": (2,), "bucket_seconds": (2.0,)}
CHUNKS = ChunksConfig(seconds=4.0, overlap=2.0, batch=4)


def _ask(engine, *request):
  return engine.submit(Request(*request)).result(stores.TIMEOUT)


def _spoken(answer):
  """What words and segments say of an answer's text, and that times rise."""
  assert " ".join(each.text for each in answer.words) == " ".join(
    answer.text.split()
  )
  assert " ".join(each.text for each in answer.segments) == " ".join(
    answer.text.split()
  )
  times = [time for each in answer.words for time in (each.start, each.end)]
  assert times == sorted(times)
  assert 0 <= times[0] < times[-1] <= answer.seconds + 1e-6
  for each in answer.segments:
    assert 0 <= each.start < each.end <= answer.seconds + 1e-6


def test_words_of_ctc_are_where_they_are_heard(
  engine_of, people, waves, offline
):
  engine = engine_of(stores.Shelf(*people), segment_seconds=5.0)
  wave = stores.wave(20.5, 3)
  answer = _ask(engine, wave, "p2")
  assert answer.text == offline(wave, people[2])
  assert engine.words
  assert len(answer.words) > 5
  assert len(answer.segments) > 3
  _spoken(answer)
  # In one piece: the same words at the same times.
  whole = engine_of(
    stores.Shelf(*people), chunks=ChunksConfig(seconds=0), bucket_seconds=(21,)
  )
  assert _ask(whole, wave, "p2").words == answer.words
  # A second later they are a second later.
  later = np.concatenate([np.zeros(16_000, np.float32), wave])
  moved = {round(w.end, 2): w.text for w in _ask(engine, later, "p2").words}
  known = {round(w.end + 1, 2): w.text for w in answer.words}
  assert len(moved.items() & known.items()) > 0.6 * len(known)


def test_silence_has_no_segments(engine_of, people):
  engine = engine_of(stores.Shelf(*people))
  answer = _ask(engine, np.zeros(0, np.float32), None)
  assert (answer.text, answer.segments, answer.words) == ("", [], [])


@pytest.mark.parametrize("name", ["stateless", "tdt"])
def test_transducers(name, engine_of, tmp_path):
  backbone = stores.recognizer(
    tmp_path, decoder=CONFIGS[name], quiet=2.0, **stores.NEAR
  )
  anna = stores.submodel(backbone, "anna", 1)
  engine = engine_of(stores.Shelf(anna), backbone=backbone, **FEW)
  for wave in (stores.wave(2.0), stores.wave(9.0, 4)):
    for submodel in (anna, None):
      answer = _ask(engine, wave, submodel and submodel.task)
      (text,) = backbone.transcribe([wave], [submodel], chunks=CHUNKS)
      assert answer.text == text
      if answer.text.strip():
        _spoken(answer)
  assert engine.words
  assert answer.text.strip()


def test_las_hears_what_its_buckets_hold(engine_of, tmp_path):
  las = stores.recognizer(tmp_path, decoder=CONFIGS["las"], **stores.NEAR)
  engine = engine_of(stores.Shelf(), backbone=las, **FEW)
  wave = stores.wave(2.0)
  answer = _ask(engine, wave, None)
  assert answer.text == las.transcribe([wave])[0] != ""
  assert answer.words is None
  assert not engine.words
  assert [tuple(each) for each in answer.segments] == [(0.0, 2.0, answer.text)]
  with pytest.raises(TooLong, match="at most 2 s"):
    engine.submit(Request(stores.wave(2.25), None))


def test_beams_hear_as_offline(engine_of, recognizer, people, waves):
  search = Search(4, Weights(length=0.5), None)
  engine = engine_of(stores.Shelf(*people[:3]), search=search, **FEW)
  for submodel in (people[1], None):
    answer = _ask(engine, waves[1], submodel and submodel.task)
    (text,) = recognizer.transcribe([waves[1]], [submodel], search=search)
    assert answer.text == text != ""
    assert answer.words is None
  assert not engine.words
  with pytest.raises(TooLong):
    engine.submit(Request(waves[2], None))


@pytest.mark.parametrize("times", [False, True])
def test_whisper(times, engine_of, tmp_path):
  whispers = pytest.importorskip("whispers")
  stored = whispers.pair(tmp_path, "small")[-1]
  asked = Asked(timestamps=times, language="de" if times else "")
  backbone = Recognizer(store.asked(stored, asked))
  chunks = ChunksConfig(overlap=0.4, batch=2)
  adapter = AdapterConfig(family="residual", width=2, stacks="both")
  anna = stores.submodel(backbone, "anna", 1, adapter=adapter, scale=2.0)
  engine = engine_of(
    stores.Shelf(anna), backbone=backbone, batch_sizes=(2,), chunks=chunks
  )
  waves = whispers.waves((44_000, 16_000, 9_000))
  for submodel in (anna, None):
    given = (waves, [submodel] * 3)
    texts = backbone.transcribe(*given, chunks=chunks)
    answers = [_ask(engine, w, submodel and "anna") for w in waves]
    assert [each.text for each in answers] == texts
    assert all(each.words is None for each in answers)
    assert not engine.words
    if times:
      found = [list(each.segments) for each in answers]
      assert found == backbone.segments(*given, chunks=chunks)
    else:
      assert [tuple(s) for a in answers for s in a.segments] == [
        (0.0, a.seconds, a.text) for a in answers if a.text
      ]
