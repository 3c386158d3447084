"""The engine: each answer is that of its speaker, whatever else goes on."""

import random
import threading

import pytest
import serve_stores as stores

from hra.config import ChunksConfig, EngineConfig
from hra.serve.engine import Engine
from hra.serve.interface import (
  Request,
)

CONFIG = EngineConfig(
  slots=4,
  host_rows=6,
  batch_sizes=(1, 4),
  bucket_seconds=(1.0, 2.0),
  queue=512,
  refresh_seconds=30.0,
)
CHUNKS = ChunksConfig(seconds=4.0, overlap=2.0)
SECONDS = (1.0, 1.9, 3.6)
TIMEOUT = 60


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
  return stores.recognizer(tmp_path_factory.mktemp("backbone"), **stores.NEAR)


@pytest.fixture(scope="module")
def people(recognizer):
  return [stores.submodel(recognizer, f"p{i}", i) for i in range(12)]


@pytest.fixture(scope="module")
def waves():
  return [stores.wave(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def expected(recognizer, people, waves):
  """(task or None, wave's place) -> the offline transcript."""
  found = {}
  for place, wave in enumerate(waves):
    chosen = [None, *people]
    texts = recognizer.transcribe([wave] * len(chosen), chosen, chunks=CHUNKS)
    for submodel, text in zip(chosen, texts, strict=True):
      found[submodel and submodel.task, place] = text
  return found


def _engine(recognizer, shelf, **changes):
  import dataclasses

  config = dataclasses.replace(CONFIG, **changes)
  engine = Engine(recognizer, shelf, config, chunks=CHUNKS)
  assert engine.wait_until_ready(TIMEOUT)
  return engine


def test_speakers_under_eviction_from_many_threads(
  recognizer, people, waves, expected
):
  assert len(set(expected.values())) > 0.8 * len(expected)
  with _engine(recognizer, stores.Shelf(*people)) as engine:
    compiled = engine.figures()["compilations_total"]
    wrong, spent = [], []

    def client(number):
      rng = random.Random(number)
      for turn in range(20):
        task = f"p{(number * 5 + turn) % len(people)}"
        task = None if rng.random() < 0.1 else task
        place = rng.randrange(len(waves))
        answer = engine.submit(Request(waves[place], task)).result(TIMEOUT)
        spent.append(answer.spent)
        if answer.text != expected[task, place] or answer.receipt.task != task:
          wrong.append((task, place, answer))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert not wrong
    assert len(spent) == 160
    figures = engine.figures()
    assert figures["evictions_total"] > 20
    assert figures["slots_used"] == CONFIG.slots
    assert figures["host_rows"] <= CONFIG.host_rows
    assert figures["compilations_total"] == compiled > 0
    assert figures["requests_waiting"] == 0
