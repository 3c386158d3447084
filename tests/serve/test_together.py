"""The server and the engine together: everybody's answer is their own."""

import asyncio
import dataclasses
import json

import httpx2
import live_server as live
import numpy as np
import openai
import pytest
import serve_stores as stores
from websockets.sync.client import connect

from hra import submodels
from hra.config import ChunksConfig, EngineConfig
from hra.serve.engine import Engine

SPEAKERS, SLOTS, REQUESTS, AT_ONCE = 8, 3, 96, 12
CHUNKS = ChunksConfig(seconds=4.0, overlap=2.0)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
  return stores.recognizer(tmp_path_factory.mktemp("backbone"), **stores.NEAR)


@pytest.fixture(scope="module")
def people(recognizer):
  made = [
    stores.submodel(recognizer, f"speaker {i}", i) for i in range(SPEAKERS)
  ]
  shared = submodels.shared_fingerprint(made[0].shared)
  return [dataclasses.replace(one, shared_fingerprint=shared) for one in made]


@pytest.fixture(scope="module")
def waves():
  """As 16 bits hold them; the last is cut into pieces."""
  made = [stores.wave(seconds, i) for i, seconds in enumerate((0.7, 1.6, 9.3))]
  return [np.rint(each * 2**15).astype(np.float32) / 2**15 for each in made]


@pytest.fixture(scope="module")
def offline(recognizer, people, waves):
  """What each speaker, and nobody, is heard to say in each recording."""
  chosen = [None, *people]
  return [
    recognizer.transcribe([wave] * len(chosen), chosen, chunks=CHUNKS)
    for wave in waves
  ]


@pytest.fixture(scope="module")
def running(recognizer, people, tmp_path_factory):
  store = submodels.create(tmp_path_factory.mktemp("store") / "submodels")
  for each in people:
    store.publish(each)
  config = EngineConfig(
    slots=SLOTS,
    host_rows=SLOTS + 1,
    batch_sizes=(1, 4),
    bucket_seconds=(1.0, 2.0),
    queue=512,
  )
  engine = Engine(recognizer, store, config, chunks=CHUNKS)
  assert engine.wait_until_ready(120)
  parts = live.service(
    engine, limits={"requests_per_minute": 0.0, "at_once": 0}
  )
  with live.serving(parts) as server:
    yield server


def test_events_of_a_long_recording(running, people, waves, offline):
  with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any") as client:
    for speaker, text in zip(people, offline[2][1:], strict=True):
      *deltas, done = client.audio.transcriptions.create(
        model=f"tiny:{speaker.task}",
        file=("speech.wav", live.wav(waves[2])),
        stream=True,
      )
      assert "".join(each.delta for each in deltas) == text == done.text


def test_a_load_that_forces_eviction(running, people, waves, offline):
  assert len(set(offline[1])) == SPEAKERS + 1

  async def ask(client, limit, number):
    place, speaker = number % 2, number % SPEAKERS  # in turn: the worst order
    async with limit:
      found = await client.audio.transcriptions.create(
        model=f"tiny:{people[speaker].task}",
        file=("speech.wav", live.wav(waves[place])),
      )
    assert found.hra["submodel"] == people[speaker].task
    assert found.hra["applied"] == "submodel"
    return found.text, offline[place][1 + speaker]

  async def run():
    limit = asyncio.Semaphore(AT_ONCE)
    async with openai.AsyncOpenAI(
      base_url=f"{running.url}/v1", api_key="any", max_retries=0
    ) as client:
      asked = (ask(client, limit, number) for number in range(REQUESTS))
      return await asyncio.gather(*asked)

  before = running.service.engine.figures()
  told = asyncio.run(run())
  after = running.service.engine.figures()
  assert [text for text, _ in told] == [expected for _, expected in told]
  assert after["evictions_total"] - before["evictions_total"] > SPEAKERS
  assert after["compilations_total"] == before["compilations_total"]


def test_a_long_recording_with_times(running, people, waves, offline):
  with openai.OpenAI(base_url=f"{running.url}/v1", api_key="any") as client:
    found = client.audio.transcriptions.create(
      model=f"tiny:{people[0].task}",
      file=("speech.wav", live.wav(waves[2])),
      response_format="verbose_json",
      timestamp_granularities=["word", "segment"],
    )
  assert found.text == offline[2][1]
  assert [word.word for word in found.words] == found.text.split()
  starts = [word.start for word in found.words]
  assert starts == sorted(starts)
  assert found.words[-1].end <= found.duration


@pytest.mark.parametrize("place", [1, 2])
def test_a_stream_ends_as_the_file_is_heard(
  running, people, waves, offline, place
):
  pcm = np.rint(waves[place] * 2**15).astype("<i2").tobytes()
  url = running.url.replace("http", "ws")
  with connect(f"{url}/v1/audio/stream") as socket:
    socket.send(json.dumps({"type": "start", "model": "tiny:speaker 2"}))
    for start in range(0, len(pcm), 3_200):
      socket.send(pcm[start : start + 3_200])
    socket.send(json.dumps({"type": "end"}))
    told = [json.loads(message) for message in socket]
  assert told[0]["type"] == "ready"
  assert told[-1]["type"] == "final"
  assert told[-1]["text"] == offline[place][1 + 2]


@pytest.mark.parametrize(
  "name",
  ["../speaker 1", "/etc/passwd", "..", ".", "speaker 1\0", "x" * 5000, "é/ü"],
)
def test_names_that_nobody_has(running, waves, name):
  response = httpx2.post(
    f"{running.url}/v1/audio/transcriptions",
    data={"model": f"tiny:{name}"},
    files={"file": ("speech.wav", live.wav(waves[0]))},
  )
  assert response.status_code == 404, response.text
  assert response.json()["error"]["code"] == "model_not_found"
