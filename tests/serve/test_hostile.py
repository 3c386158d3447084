"""Clients that want the server to end: slow, gone, endless, too many."""

import asyncio
import concurrent.futures
import contextlib
import io
import json
import pathlib
import re
import resource
import socket
import threading
import time

import fake_engine as fake
import live_server as live
import numpy as np
import pytest
import soundfile
import websockets
from websockets.sync import client as streams

from hra.serve import interface

WAVE = live.wave()
WAV = live.wav(WAVE)
_PATH = "/v1/audio/transcriptions"
_VARIES = {"date", "x-request-id", "content-length"}
"""Headers that differ from answer to answer."""


class _Bounded(fake.Engine):
  """With a queue that is full at some time."""

  def __init__(self, most):
    super().__init__()
    self.most = most
    self.waiting = 0
    self.lock = threading.Lock()

  def submit(self, request):
    with self.lock:
      if self.waiting >= self.most:
        raise interface.Overloaded("q", expected="room", got="none")
      self.waiting += 1
    future = super().submit(request)
    future.add_done_callback(self._left)
    return future

  def _left(self, _):
    with self.lock:
      self.waiting -= 1


@pytest.mark.parametrize(
  "path",
  [
    "/../../../../etc/passwd",
    "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2f..%2fetc%2fpasswd",
    "//etc/passwd",
    "/page/../keys.json",
    "/%00",
    "/app.js/../../../interface.py",
    "/..%5c..%5cinterface.py",
    "/interface.py",
    "/__init__.py",
  ],
)
def test_paths_that_lead_elsewhere(path):
  with live.serving(live.service(fake.Engine())) as running:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    answer = _exchange(running.port, f"{request}Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert b"root:" not in answer
    assert b"import " not in answer


def _exchange(port, request):
  with socket.create_connection(("127.0.0.1", port), 20) as client:
    client.sendall(request.encode() if isinstance(request, str) else request)
    return _rest(client)


def _rest(client):
  parts = []
  with contextlib.suppress(ConnectionError):
    while part := client.recv(1 << 16):
      parts.append(part)
  return b"".join(parts)


def _form(data=WAV, model=b"tiny:anna"):
  return (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
    + model
    + b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a"'
    b"\r\n\r\n" + data + b"\r\n--b--\r\n"
  )


def _request(body, *, close=True):
  return (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: %d\r\n%s\r\n%s"
    % (len(body), b"Connection: close\r\n" if close else b"", body)
  )


def _check_well(port):
  answer = _exchange(port, _request(_form()))
  assert answer.startswith(b"HTTP/1.1 200 "), answer
  body = answer.partition(b"\r\n\r\n")[2]
  assert json.loads(body)["text"] == fake.text_of("anna", WAVE)


@pytest.mark.parametrize("sent", ["head", "body", "stream"])
def test_slow_loris(sent):
  """More connections than there may be, all of them slow: others are answered."""
  limits = {
    "connections": 24,
    "header_seconds": 1.0,
    "body_seconds": 1.0,
  }
  begins = {
    "head": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "body": _request(_form())[:-500],
    "stream": b"GET /v1/audio/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
  }
  parts = live.service(fake.Engine(), limits=limits)
  with live.serving(parts) as running, contextlib.ExitStack() as stack:
    slow = []
    for number in range(60):
      made = socket.create_connection(("127.0.0.1", running.port), 20)
      slow.append(stack.enter_context(made))
      with contextlib.suppress(ConnectionError):
        made.sendall(begins[sent])
      if sent == "stream" and number < limits["connections"]:
        assert made.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
    began = time.monotonic()
    while not _answers(running.port):
      for each in slow if sent != "stream" else ():
        with contextlib.suppress(OSError):
          each.sendall(b"a")
      # Their second, one for them to hear why, and what a busy machine takes.
      assert time.monotonic() - began < 4
      time.sleep(0.05)
    ends = [_rest(each) for each in slow]
    if sent == "stream":
      # One made room at once for who asked; the others had their time.
      assert sum(b'"status":408' in end for end in ends) == 23
    else:
      said = {end.partition(b"\r\n")[0][9:12] for end in ends}
      assert said <= {b"", b"408", b"503"}
      assert b"408" in said
    _check_well(running.port)


def _answers(port):
  with contextlib.suppress(OSError):
    return _exchange(port, _request(_form())).startswith(b"HTTP/1.1 200 ")
  return False


def test_clients_that_hang_up_within_a_request():
  engine = fake.Engine()
  request = _request(_form())
  rng = np.random.default_rng(0)
  with live.serving(live.service(engine)) as running:
    for place in rng.integers(1, len(request), 40):
      with socket.create_connection(("127.0.0.1", running.port), 20) as client:
        client.sendall(request[: int(place)])
        _hang_up(client, reset=rng.integers(2))
    _wait(lambda: _running(running) == 0)
    assert not engine.asked
    _check_well(running.port)


@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_hang_up_while_they_wait(reset):
  """Each is asked of the engine, and taken back while that holds it."""
  engine = fake.Engine()
  request = _request(_form())
  with live.serving(live.service(engine)) as running:
    engine.gate.clear()
    try:
      for number in range(1, 21):
        address = ("127.0.0.1", running.port)
        with socket.create_connection(address, 20) as client:
          client.sendall(request)
          _wait(lambda count=number: len(engine.futures) == count)
          assert running.service.samples.held == WAVE.nbytes
          _hang_up(client, reset=reset)
        _wait(engine.futures[-1].cancelled)
        _wait(lambda: running.service.samples.held == 0)
    finally:
      engine.gate.set()
    _wait(lambda: _running(running) == 0)
    _check_well(running.port)


def _hang_up(client, *, reset):
  if reset:  # instead of an end
    linger = (1).to_bytes(4, "little") + bytes(4)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
  client.close()


def _running(server):
  told = server.service.metrics.told().decode()
  (line,) = re.findall(r"^hra_requests_running (.*)$", told, re.M)
  return float(line)


def _wait(holds):
  deadline = time.monotonic() + 10
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_streams_that_hang_up_anywhere():
  engine = fake.Engine()
  with live.serving(live.service(engine)) as running:
    for number in range(20):
      url = f"ws://127.0.0.1:{running.port}/v1/audio/stream"
      with streams.connect(url) as stream:
        if number % 4 > 0:
          stream.send(json.dumps({"type": "start", "model": "tiny:anna"}))
        if number % 4 > 1:
          stream.send(WAV[44:])
        if number % 4 > 2:
          stream.send(json.dumps({"type": "end"}))
        if number % 2:
          stream.socket.close()
    deadline = time.monotonic() + 15
    while running.service.samples.held:
      assert time.monotonic() < deadline
      time.sleep(0.02)
    _check_well(running.port)


def test_a_stream_that_begins_nothing_is_told_and_ended():
  limits = {"header_seconds": 0.3, "body_seconds": 0.6}
  with live.serving(live.service(fake.Engine(), limits=limits)) as running:
    url = f"ws://127.0.0.1:{running.port}/v1/audio/stream"
    for messages, seconds in (([], 0.3), ([{"model": "tiny:anna"}], 0.6)):
      began = time.monotonic()
      with streams.connect(url) as stream:
        for message in messages:
          stream.send(json.dumps({"type": "start"} | message))
        with contextlib.suppress(websockets.ConnectionClosed):
          for message in stream:
            told = json.loads(message)
      assert told["status"] == 408
      assert seconds <= time.monotonic() - began < seconds + 3


def test_two_hours_are_refused_from_the_header():
  hours_S = np.zeros(2 * 3600 * 16_000, np.int16)
  hours_S[::16_000] = 1_000
  file = io.BytesIO()
  soundfile.write(file, hours_S, 16_000, format="FLAC")
  del hours_S
  request = _request(_form(file.getvalue()))
  engine = fake.Engine()
  with live.serving(live.service(engine)) as running:
    _check_well(running.port)
    began = time.monotonic()
    answer = _exchange(running.port, request)
    assert time.monotonic() - began < 2
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"7200.00 s" in answer
    assert b'"audio_too_long"' in answer
    assert len(engine.asked) == 1
    _check_well(running.port)


def _resident():
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * resource.getpagesize()


async def _ask(port, request, gate):
  async with gate:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read(-1)
    writer.close()
  status = answer[9:12]
  if status == b"503":
    assert b"retry-after" in answer.lower()
  if status == b"200":
    text = json.loads(answer.partition(b"\r\n\r\n")[2])["text"]
    assert text == fake.text_of("anna", WAVE)
  return int(status)


async def _flood(port, count, most, engine):
  """So many requests at once, as fast as they are taken; how they ended."""
  gate = asyncio.Semaphore(400)
  request = _request(_form())
  tasks = [asyncio.create_task(_ask(port, request, gate)) for _ in range(count)]
  while sum(task.done() for task in tasks) < count - most:
    await asyncio.sleep(0.05)
  engine.gate.set()
  return [await task for task in tasks]


def _check_flood(count, most):
  engine = _Bounded(most)
  engine.gate.clear()
  limits = {"requests_per_minute": 0.0, "at_once": 0, "connections": 512}
  with live.serving(live.service(engine, limits=limits)) as running:
    before = _resident()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      flood = _flood(running.port, count, most, engine)
      told = pool.submit(asyncio.run, flood).result()
    grown = _resident() - before
    totals = {status: told.count(status) for status in set(told)}
    assert totals == {200: most, 503: count - most}
    assert grown < 256 << 20
    _wait(lambda: running.service.samples.held == 0)
    engine.gate.set()
    _check_well(running.port)
    return grown


def test_a_queue_that_is_full():
  _check_flood(1_000, 64)


@pytest.mark.slow
def test_ten_thousand_requests_at_once():
  _check_flood(10_000, 256)
