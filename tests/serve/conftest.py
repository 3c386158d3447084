"""A tiny backbone, its speakers, and engines of them."""

import dataclasses

import pytest
import serve_stores as stores

from hra.config import ChunksConfig, EngineConfig
from hra.serve.engine import Engine

CONFIG = EngineConfig(
  slots=4,
  host_rows=6,
  batch_sizes=(1, 4),
  bucket_seconds=(1.0, 2.0),
  queue=512,
  refresh_seconds=30.0,
)
CHUNKS = ChunksConfig(seconds=4.0, overlap=2.0, batch=4)
SECONDS = (1.0, 1.9, 3.6)


@pytest.fixture(scope="session")
def recognizer(tmp_path_factory):
  return stores.recognizer(tmp_path_factory.mktemp("backbone"), **stores.NEAR)


@pytest.fixture(scope="session")
def people(recognizer):
  """Twelve speakers of one run."""
  return [stores.submodel(recognizer, f"p{i}", i) for i in range(12)]


@pytest.fixture(scope="session")
def waves():
  return [stores.wave(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="session")
def offline(recognizer):
  """The transcript of a wave as it is heard without an engine."""
  found = {}

  def transcribe(wave, submodel=None):
    key = wave.tobytes(), submodel and submodel.fingerprint
    if key not in found:
      (found[key],) = recognizer.transcribe(
        [wave], [submodel], chunks=CHUNKS, guard=False
      )
    return found[key]

  return transcribe


@pytest.fixture
def engine_of(recognizer):
  """Makes engines, which end with the test."""
  made = []

  def make(shelf, *, backbone=recognizer, ready=True, search=None, **changes):
    chunks = changes.pop("chunks", CHUNKS)
    config = dataclasses.replace(CONFIG, **changes)
    engine = Engine(backbone, shelf, config, search=search, chunks=chunks)
    made.append(engine)
    assert not ready or engine.wait_until_ready(stores.TIMEOUT)
    return engine

  yield make
  for engine in made:
    engine.close()
