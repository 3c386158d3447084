"""Whatever comes over the wire: a clear answer, never a 500, and the next is heard.

Recordings, the form around them, the request around that, a stream's messages and its
frames are damaged, each by a seed. What isn't a whole request is given up in time.
"""

import concurrent.futures
import contextlib
import json
import logging
import re
import socket
import struct
import threading

import damaged_requests as damaged
import fake_engine as fake
import live_server as live
import mutations
import numpy as np
import pytest

WAVE = live.wave()
WAV = live.wav(WAVE)
TEXT = fake.text_of("anna", WAVE)
_CLIENTS = 6
"""At the same time."""
_CHECKED = 100
"""Inputs of a client between two requests that are whole."""
_CLEAR = {
  0,
  "stream",
  200,
  400,
  401,
  403,
  404,
  405,
  408,
  411,
  413,
  415,
  422,
  426,
  431,
  501,
}
"""What an input may be answered with; 0 is none, of one that never was a request."""
_LIMITS = {
  "requests_per_minute": 0.0,
  "header_seconds": 0.3,
  "body_seconds": 0.3,
  "body_mib": 1.0,
  "max_seconds": 30.0,
  "decode_seconds": 10.0,
  "decoders": 2,
}


def _status(answer):
  """0 where the server hung up without a word."""
  found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
  return int(found[1]) if found else 0


def _exchange(port, request):
  """All that the server says until it hangs up, or waits for another request.

  Raises:
    TimeoutError: it says nothing.
  """
  with socket.create_connection(("127.0.0.1", port), 20) as client:
    with contextlib.suppress(ConnectionError):
      client.sendall(request)
    said = b""
    with contextlib.suppress(ConnectionError):
      said = client.recv(1 << 16)
      client.settimeout(2)
      with contextlib.suppress(TimeoutError):
        while part := client.recv(1 << 16):
          said += part
    return said


def _check_well(port):
  answer = _exchange(port, damaged.posted(damaged.form(WAV)))
  assert _status(answer) == 200, answer
  body = answer.partition(b"\r\n\r\n")[2]
  assert json.loads(body)["text"] == TEXT


class _Frames:
  """A WebSocket client that sends what it likes."""

  def __init__(self, port):
    self._socket = socket.create_connection(("127.0.0.1", port), 20)
    self.heard = b""

  def __enter__(self):
    self.send(
      b"GET /v1/audio/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
      b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
      b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
      b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    while b"\r\n\r\n" not in self.heard:
      part = self._socket.recv(1 << 16)
      assert part
      self.heard += part
    assert _status(self.heard) == 101
    return self

  def __exit__(self, *_):
    self._socket.close()

  def send(self, data):
    with contextlib.suppress(ConnectionError):
      self._socket.sendall(data)

  def rest(self):
    """What comes until the server hangs up, or says no more."""
    self._socket.settimeout(1)  # it may wait for its own end to be answered
    with contextlib.suppress(ConnectionError, TimeoutError):
      while part := self._socket.recv(1 << 16):
        self.heard += part
    return self.heard.partition(b"\r\n\r\n")[2]


def _frame(opcode, data, *, fin=True, mask=True, length=None):
  length = len(data) if length is None else length
  head = bytes([(fin << 7) | opcode])
  if length < 126:
    head += bytes([(mask << 7) | length])
  elif length < 1 << 16:
    head += bytes([(mask << 7) | 126]) + struct.pack(">H", length)
  else:
    head += bytes([(mask << 7) | 127]) + struct.pack(">Q", length)
  if not mask:
    return head + data
  key = b"\1\2\3\4"
  masked = bytes(byte ^ key[place % 4] for place, byte in enumerate(data))
  return head + key + masked


_START = b'{"type": "start", "model": "tiny:anna"}'
_END = b'{"type": "end"}'
_TEXT, _BINARY, _CLOSE, _PING = 1, 2, 8, 9
_SAID = (
  _START,
  _END,
  b"",
  b"{}",
  b"[]",
  b"null",
  b"[" * 20_000,
  b'{"type": "start"}',
  b'{"type": "start", "model": 3}',
  b'{"type": "start", "model": "tiny:\\ud800"}',
  b'{"type": "start", "model": "tiny:../../x"}',
  b'{"type": "start", "model": "tiny:anna", "encoding": "mp3"}',
  b'{"type": "start", "model": "tiny:anna", "encoding": ["pcm16"]}',
  b'{"type": "start", "model": "tiny:anna", "sample_rate": 1e999}',
  b'{"type": "start", "model": "tiny:anna", "sample_rate": {}}',
  b'{"type": "start", "model": "tiny:anna", "__class__": 1}',
  b'{"type": ["start"]}',
  b'{"type": "start", "model": "tiny:anna", "token": "\\u0000"}',
  b'{"type": "start", "model": "tiny:anna", "guard": 1}',
  b'{"type": "start", "model": "tiny:anna", "encoding": "float32"}',
  b'{"model": NaN}',
  b"\xff\xfe",
)


def _messages(rng):
  """Frames: a session that is damaged in what it says, or in its bytes."""
  sound = WAV[44:]
  blocks = [
    sound[start : start + 3_001] for start in range(0, len(sound), 3_001)
  ]
  frames = [_frame(_TEXT, _START)]
  frames += [_frame(_BINARY, block) for block in blocks]
  frames.append(_frame(_TEXT, _END))
  for _ in range(rng.integers(1, 4)):
    place = int(rng.integers(len(frames)))
    said = damaged.choose(rng, _SAID)
    match rng.integers(9):
      case 0:
        frames[place] = _frame(_TEXT, said)
      case 1:
        frames.insert(place, _frame(_TEXT, said))
      case 2:
        del frames[place]
        frames = frames or [b""]
      case 3:
        frames[place] = mutations.mutate(frames[place], rng, [said or b"x"])
      case 4:
        frames.insert(place, _frame(int(rng.integers(16)), said[:125]))
      case 5:
        frames.insert(
          place, _frame(_BINARY, b"", length=int(2 ** rng.uniform(0, 63)))
        )
      case 6:
        odd = rng.standard_normal(50).astype(np.float32)
        odd[0] = damaged.choose(rng, (np.nan, np.inf, 1e30, 0))
        frames.insert(place, _frame(_BINARY, odd.tobytes()))
      case 7:
        frames.insert(place, _frame(_TEXT, said, fin=bool(rng.integers(2))))
      case 8:
        frames.insert(place, _frame(_BINARY, said, mask=False))
  return b"".join(frames)


def _check_stream(port):
  with _Frames(port) as stream:
    stream.send(_frame(_TEXT, _START))
    stream.send(_frame(_BINARY, WAV[44:]) + _frame(_TEXT, _END))
    assert TEXT.encode() in stream.rest()


def _ask(port, case, sounds):
  """One input; what became of it."""
  rng = np.random.default_rng(case)
  if case % 5 == 4:
    with _Frames(port) as stream:
      stream.send(_messages(rng))
      # Some sessions stay open, and rightly so: it ends as clients do.
      stream.send(_frame(_CLOSE, b"\x03\xe8"))
      said = stream.rest()
    return 500 if b'"status":500' in said.replace(b" ", b"") else "stream"
  maker = damaged.MAKERS[int(rng.integers(len(damaged.MAKERS)))]
  request = maker(rng, sounds)
  try:
    return _status(_exchange(port, request))
  except TimeoutError:
    return "late"


def _fuzz(tmp_path, first, end, caplog):
  """How many inputs ended how."""
  folder = tmp_path / "sounds"
  folder.mkdir()
  sounds = mutations.files(folder)
  totals: dict = {}
  lock = threading.Lock()
  parts = live.service(
    fake.Engine(),
    limits=_LIMITS,
    stream={"step_seconds": 0.1},
  )
  with live.serving(parts) as running, caplog.at_level(logging.WARNING):

    def work(client):
      for count, case in enumerate(range(first + client, end, _CLIENTS)):
        ended = _ask(running.port, case, sounds)
        with lock:
          totals.setdefault(ended, []).append(case)
        if count % _CHECKED == 0:
          _check_well(running.port)
          _check_stream(running.port)

    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
      for done in [pool.submit(work, n) for n in range(_CLIENTS)]:
        done.result()
    _check_well(running.port)
    _check_stream(running.port)
    unclear = {ended: totals[ended] for ended in totals.keys() - _CLEAR}
    assert not unclear
    assert parts.samples.held == 0
    failed = [line for line in running.requests() if line["status"] == 500]
    assert not failed, failed[:3]
    lines = map(json.loads, running.logged.getvalue().splitlines())
    traces = [line for line in lines if "traceback" in line]
    assert not traces, traces[:3]
  errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
  assert not errors, errors[:3]
  return {ended: len(cases) for ended, cases in totals.items()}


def test_damaged_input(tmp_path, caplog):
  totals = _fuzz(tmp_path, 0, 400, caplog)
  assert totals[200] > 20
  assert totals[400] > 60
  assert totals["stream"] == 80


@pytest.mark.slow
def test_more_damaged_input(tmp_path, caplog):
  totals = _fuzz(tmp_path, 400, 12_400, caplog)
  print(totals)
  assert sum(totals.values()) == 12_000
  assert totals[200] > 600
  assert totals[400] > 1_800


def test_inputs_are_what_their_seed_says():
  sounds = {"a": WAV}
  for maker in {*damaged.MAKERS}:
    one, two = (maker(np.random.default_rng(7), sounds) for _ in range(2))
    assert one == two
    made = {maker(np.random.default_rng(n), sounds) for n in range(100)}
    assert len(made) > 25, maker
  assert len({_messages(np.random.default_rng(n)) for n in range(100)}) > 60
