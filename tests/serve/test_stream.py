"""Samples over a WebSocket: partial texts, and in the end that of the whole."""

import concurrent.futures
import contextlib
import json
import time

import fake_engine as fake
import live_server as live
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from hra.serve import interface, keys

WAVE = live.wave(3.0)
PCM = np.rint(WAVE * 2**15).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def engine():
  return fake.Engine()


@pytest.fixture(scope="module")
def running(engine):
  parts = live.service(
    engine,
    limits={"max_seconds": 20.0, "answer_seconds": 20.0},
    stream={"step_seconds": 0.5, "window_seconds": 2.0},
  )
  with live.serving(parts) as server:
    yield server


def _connect(server, **changes):
  url = server.url.replace("http", "ws")
  return connect(f"{url}/v1/audio/stream", **changes)


def _say(socket, **message):
  socket.send(json.dumps(message))


def _hear(socket):
  return json.loads(socket.recv(timeout=20))


def _until(socket, kind):
  """The messages up to one of a kind."""
  found = [_hear(socket)]
  while found[-1]["type"] != kind:
    found.append(_hear(socket))
  return found


def _answered(server, *parts, end=True, **start):
  """All that the server says of a recording."""
  with _connect(server) as socket:
    _say(socket, type="start", **{"model": "tiny:anna"} | start)
    told = [_hear(socket)]
    with contextlib.suppress(ConnectionClosed):
      for part in parts:
        socket.send(part)
      if end:
        _say(socket, type="end")
    with contextlib.suppress(ConnectionClosed):
      while True:
        told.append(_hear(socket))
    return told, socket.protocol.close_code


def _refused(server, *parts, **start):
  told, code = _answered(server, *parts, **start)
  assert told[-1]["type"] == "error", told
  return told[-1]["status"], told[-1]["error"], code


@pytest.mark.parametrize("size", [len(PCM), 32_000, 6_001])
def test_the_final_text_is_that_of_the_whole(running, size):
  parts = [PCM[i : i + size] for i in range(0, len(PCM), size)]
  told, code = _answered(running, *parts)
  assert told[0] == {"type": "ready"}
  assert told[-1]["type"] == "final"
  assert told[-1]["text"] == fake.text_of("anna", WAVE)
  assert told[-1]["duration"] == 3.0
  assert told[-1]["hra"]["version"] == 3
  assert [each["word"] for each in told[-1]["words"]] == ["anna", "said"]
  assert code == 1000


def test_floats(running):
  told, _ = _answered(running, WAVE.tobytes(), encoding="float32")
  assert told[-1]["text"] == fake.text_of("anna", WAVE)


def test_partial_texts_come_while_samples_do(running, engine):
  with _connect(running) as socket:
    _say(socket, type="start", model="tiny:anna")
    assert _hear(socket) == {"type": "ready"}
    socket.send(PCM[:16_000])
    first = _hear(socket)
    assert first["type"] == "partial"
    assert first["text"] == fake.text_of("anna", WAVE[:8_000])
    assert first["seconds"] == 0.5
    socket.send(PCM[16_000:40_000])
    second = _until(socket, "partial")[-1]
    assert second["text"] == fake.text_of("anna", WAVE[:20_000])
    _say(socket, type="end")
    assert _until(socket, "final")[-1]["text"] == fake.text_of(
      "anna", WAVE[:20_000]
    )


def test_what_is_long_past_is_not_heard_again(running, engine):
  long = live.wave(12.0, seed=1)
  data = np.rint(long * 2**15).astype("<i2").tobytes()
  before = len(engine.asked)
  with _connect(running) as socket:
    _say(socket, type="start", model="tiny:anna")
    assert _hear(socket) == {"type": "ready"}
    for start in range(0, len(data), 8_000):
      socket.send(data[start : start + 8_000])
      time.sleep(0.01)
    _say(socket, type="end")
    told = _until(socket, "final")
  heard = [len(request.wave_S) for request in engine.asked[before:]]
  assert max(heard[:-1]) <= 2.5 * 16_000
  assert heard[-1] == len(long)
  assert sum(heard[:-1]) < 7 * len(long)
  partials = [each["text"] for each in told[:-1]]
  assert partials[-1].count("anna said") > 3


def test_a_busy_engine_leaves_partial_texts_out(running, engine):
  engine.failure = interface.Overloaded("q", expected="room", got="none")
  try:
    with _connect(running) as socket:
      _say(socket, type="start", model="tiny:anna")
      assert _hear(socket) == {"type": "ready"}
      socket.send(PCM)
      _say(socket, type="end")
      time.sleep(0.5)
      engine.failure = None
      assert _hear(socket)["text"] == fake.text_of("anna", WAVE)
  finally:
    engine.failure = None


def test_who_waits_for_the_end_is_not_taken_for_one_who_idles():
  engine = fake.Engine()
  parts = live.service(engine, limits={"body_seconds": 0.4})
  with live.serving(parts) as server, _connect(server) as socket:
    _say(socket, type="start", model="tiny:anna", partials=False)
    assert _hear(socket) == {"type": "ready"}
    engine.gate.clear()
    try:
      socket.send(PCM)
      _say(socket, type="end")
      time.sleep(1.0)
    finally:
      engine.gate.set()
    assert _hear(socket)["type"] == "final"


def test_partial_texts_can_be_left_out(running):
  told, _ = _answered(running, PCM, partials=False)
  assert [each["type"] for each in told] == ["ready", "final"]


def test_who_is_not_there_is_told_at_once(running):
  status, error, code = _refused(running, end=False, model="tiny:nemo")
  assert (status, error["code"], code) == (404, "model_not_found", 1008)


def test_the_backbone_may_answer_instead(running):
  told, _ = _answered(running, PCM, model="tiny:nemo", fallback=True)
  assert told[-1]["text"] == fake.text_of(None, WAVE)
  assert told[-1]["hra"]["reason"] == "unknown"


def test_a_submodel_is_on_its_way_before_the_first_sample(running, engine):
  engine.loaded.clear()
  _answered(running, PCM)
  assert engine.loaded == ["anna"]


def test_a_store_that_is_gone_leaves_it_to_the_requests(
  running, engine, monkeypatch
):
  """Who is held is answered all the same; who isn't hears of the store."""
  gone = interface.StoreGone("store", expected="one that answers", got="none")

  def load(task):
    future = concurrent.futures.Future()
    future.set_exception(gone)
    return future

  monkeypatch.setattr(engine, "load", load)
  told, code = _answered(running, PCM)
  assert told[-1]["text"] == fake.text_of("anna", WAVE)
  assert code == 1000
  monkeypatch.setattr(engine, "failure", gone)
  status, error, _ = _refused(running, PCM)
  assert (status, error["code"]) == (503, "store_unreachable")


@pytest.mark.parametrize(
  ("start", "param"),
  [
    ({"model": 3}, "model"),
    ({"model": "\ud800"}, "model"),
    ({"encoding": "mp3"}, "encoding"),
    ({"sample_rate": 8000}, "sample_rate"),
    ({"guard": "yes"}, "guard"),
    ({"prompt": "Dear"}, "'prompt'"),
  ],
)
def test_starts_that_cannot_be_honoured(running, start, param):
  status, error, _ = _refused(running, end=False, **start)
  assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
  "message",
  [
    "{}",
    "[]",
    "nonsense",
    "[" * 9000,
    b"\0\0",
    '{"type": "end"}',
    "9" * 20_000,
  ],
)
def test_first_messages_that_start_nothing(running, message):
  with _connect(running) as socket:
    socket.send(message)
    assert _hear(socket)["error"]["code"] == "bad_message"
    with pytest.raises(ConnectionClosed):
      _hear(socket)


@pytest.mark.parametrize(
  ("part", "encoding", "status", "code"),
  [
    (b"", "pcm16", 400, "bad_audio"),
    (b"\0" * 3_200, "pcm16", 400, "bad_audio"),
    (PCM + b"\0", "pcm16", 400, "bad_audio"),
    (np.full(10, np.nan, "<f4").tobytes(), "float32", 400, "bad_audio"),
    (PCM * 7, "pcm16", 413, "audio_too_long"),
    ('{"type": "more"}', "pcm16", 400, "bad_message"),
  ],
)
def test_samples_that_cannot_be_heard(running, part, encoding, status, code):
  found, error, _ = _refused(running, part, encoding=encoding)
  assert (found, error["code"]) == (status, code)


def test_a_message_is_bounded(running):
  _, code = _answered(running, b"\0" * (2**20 + 2), end=False)
  assert code == 1009


def test_all_streams_together_are_bounded(running, monkeypatch):
  monkeypatch.setattr(running.service.samples, "limit", 100_000)
  status, error, code = _refused(running, PCM)
  assert (status, error["code"], code) == (503, "overloaded", 1013)
  _wait(lambda: running.service.samples.held == 0)


def test_who_hangs_up_takes_their_requests_back(running, engine):
  engine.gate.clear()
  try:
    with _connect(running) as socket:
      _say(socket, type="start", model="tiny:anna")
      assert _hear(socket) == {"type": "ready"}
      before = len(engine.asked)
      socket.send(PCM)
      _wait(lambda: len(engine.asked) > before)
    _wait(lambda: engine.futures[-1].cancelled())
    _wait(lambda: running.service.samples.held == 0)
    _wait(lambda: running.last().get("status") == 499)
  finally:
    engine.gate.set()


def test_pages_of_other_sites_are_refused(running):
  with (
    pytest.raises(InvalidStatus) as caught,
    _connect(running, origin="http://evil.example"),
  ):
    pass
  assert caught.value.response.status_code == 403


def test_keys(engine, tmp_path):
  path = tmp_path / "keys.json"
  token = keys.add(path, "annas", speakers=["anna"])
  parts = live.service(engine, keys=keys.Keys.open(path))
  with live.serving(parts) as server:
    told, _ = _answered(server, PCM, token=token)
    assert told[-1]["text"] == fake.text_of("anna", WAVE)
    header = {"Authorization": f"Bearer {token}"}
    with _connect(server, additional_headers=header) as socket:
      _say(socket, type="start", model="tiny:anna")
      assert _hear(socket) == {"type": "ready"}
    engine.loaded.clear()
    for model in ("tiny:bert", "tiny:nemo"):
      status, error, _ = _refused(server, end=False, token=token, model=model)
      assert (status, error["code"]) == (404, "model_not_found")
    assert engine.loaded == []
    for wrong in ("", "hra_x_y"):
      status, error, _ = _refused(server, end=False, token=wrong)
      assert status == (400 if wrong == "" else 401)
    status, error, _ = _refused(server, end=False)
    assert (status, error["code"]) == (401, "invalid_api_key")


def _wait(holds):
  deadline = time.monotonic() + 10
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.01)
