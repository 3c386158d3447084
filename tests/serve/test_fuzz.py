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

import fake_engine as fake
import live_server as live
import mutations
import numpy as np
import pytest

WAVE = live.wave()
WAV = live.wav(WAVE)
TEXT = fake.text_of("anna", WAVE)
_BOUNDARY = b"----boundary0123456789"
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
_NAMES = (
  b"model",
  b"file",
  b"stream",
  b"response_format",
  b"timestamp_granularities[]",
  b"language",
  b"temperature",
  b"prompt",
  b"fallback",
  b"guard",
  b"include[]",
  b"",
  b"[]",
  b"file[]",
  b"__proto__",
  b"\xff\xfe",
  b"\0",
  b"n" * 9_000,
)
_VALUES = (
  b"tiny:anna",
  b"tiny:bert",
  b"tiny",
  b"tiny:",
  b":",
  b"tiny:../../etc/passwd",
  b"tiny:\0",
  b"tiny:\xed\xa0\x80",
  "tiny:a\u202eb\U0001f600".encode(),
  b"tiny:%2e%2e%2f",
  b"x" * 20_000,
  b"true",
  b"false",
  b"json",
  b"text",
  b"srt",
  b"vtt",
  b"verbose_json",
  b"word",
  b"segment",
  b"nan",
  b"1e999",
  b"-0",
  b"",
  b"\r\n--",
  b"\xff",
)
_CHARSETS = (
  b"utf-8",
  b"utf-16",
  b"utf-7",
  b"hex",
  b"rot13",
  b"idna",
  b"punycode",
  b"undefined",
  b"unicode_escape",
  b"raw_unicode_escape",
  b"zlib",
  b"bz2",
  b"mbcs",
  b"x" * 500,
  b"\0",
  b'"',
  b"",
)


def _part(name, data, *, more=b"", kind=b""):
  disposition = b'form-data; name="%s"%s' % (name, more)
  head = b"Content-Disposition: " + disposition + kind
  return b"--" + _BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


def _form(data, *fields):
  fields = fields or ((b"model", b"tiny:anna"),)
  parts = [_part(name, value) for name, value in fields]
  file = _part(b"file", data, more=b'; filename="a.wav"')
  return b"".join([*parts, file, b"--" + _BOUNDARY + b"--\r\n"])


def _request(
  body, *, path=b"/v1/audio/transcriptions", kind=None, headers=(), length=None
):
  kind = kind or b"multipart/form-data; boundary=" + _BOUNDARY
  lines = [
    b"POST " + path + b" HTTP/1.1",
    b"Host: 127.0.0.1",
    b"Content-Type: " + kind,
    b"Content-Length: %d" % (len(body) if length is None else length),
    b"Connection: close",
    *headers,
  ]
  return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _choose(rng, options):
  return options[int(rng.integers(len(options)))]


def _audio(rng, sounds):
  """Damaged bytes in a whole form."""
  name = _choose(rng, list(sounds))
  data = mutations.mutate(sounds[name], rng, list(sounds.values()))
  return _request(_form(data))


def _framing(rng, sounds):
  """A damaged form."""
  body = _form(WAV[: int(rng.integers(2_000))], *_fields(rng))
  body = mutations.mutate(body, rng, [_form(b"x"), *list(sounds.values())[:3]])
  return _request(body)


def _fields(rng):
  count = int(rng.integers(4))
  named = [(_choose(rng, _NAMES), _choose(rng, _VALUES)) for _ in range(count)]
  return [(b"model", _choose(rng, _VALUES)), *named]


def _words(rng, sounds):
  """A whole form that says odd things."""
  del sounds
  body = _form(WAV, *_fields(rng))
  boundary = _BOUNDARY
  charset = b""
  match rng.integers(6):
    case 0:
      charset = b"; charset=" + _choose(rng, _CHARSETS)
    case 1:
      boundary = _choose(rng, (b"", b"\xff", b"b" * 9_000, b'"', b"--"))
    case 2:
      more = _choose(
        rng,
        (
          b"; filename*=UTF-8''%ff%fe",
          b"; filename*=hex''00",
          b'; filename="../../x"',
          b"; filename",
          b'; filename=""',
          b"; filename*0=a; filename*1=b",
        ),
      )
      body = _part(b"file", WAV, more=more) + body
    case 3:
      kind = _choose(
        rng,
        (
          b"\r\nContent-Transfer-Encoding: base64",
          b"\r\nContent-Type: text/plain; charset=hex",
          b"\r\n" + b"X: y\r\n" * 3_000 + b"Z: z",
          b"\r\nContent-Disposition: form-data",
          b"\r\nno colon here",
        ),
      )
      body = _part(b"model", b"tiny", kind=kind) + body
    case 4:
      body = body * int(rng.integers(2, 40))
  kind = b"multipart/form-data; boundary=" + boundary + charset
  if rng.integers(8) == 0:
    kind = _choose(
      rng,
      (
        b"application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data",
        b"multipart/mixed; boundary=" + _BOUNDARY,
        b"\xff\xfe",
      ),
    )
  return _request(body, kind=kind)


def _whole(rng, sounds):
  """A damaged request."""
  request = _request(_form(WAV), headers=(b"Accept: */*",))
  others = [
    _request(b""),
    b"GET / HTTP/1.1\r\n\r\n",
    *list(sounds.values())[:2],
  ]
  if rng.integers(2):
    head, _, rest = request.partition(b"\r\n\r\n")
    return mutations.mutate(head + b"\r\n\r\n", rng, others) + rest
  return mutations.mutate(request, rng, others)


def _coding(rng, sounds):
  """Lengths and chunks that lie."""
  del sounds
  body = _form(WAV[:3_000])
  if rng.integers(2):
    length = int(rng.choice([0, 1, len(body) - 5, len(body) + 5, 2**31, 2**70]))
    return _request(body, length=length)
  chunks = b""
  for start in range(0, len(body), 500):
    part = body[start : start + 500]
    size = b"%x" % int(rng.choice([len(part)] * 8 + [0, 2**40]))
    chunks += size + b"\r\n" + part + b"\r\n"
  chunks += b"0\r\n\r\n"
  request = _request(chunks, headers=(b"Transfer-Encoding: chunked",))
  return re.sub(rb"Content-Length: \d+\r\n", b"", request)


def _routes(rng, sounds):
  """Other paths and methods, with what is no JSON."""
  del sounds
  path = _choose(
    rng,
    (
      b"/v1/models/" + _choose(rng, _VALUES).replace(b"\r\n", b""),
      b"/v1/models/%00",
      b"/v1/models/tiny:%ed%a0%80",
      b"/v1/models/tiny:..%2f..%2fetc",
      b"/v1/models?" + b"a=" * 50,
      b"/admin/load",
      b"/admin/unload",
      b"/v1/audio/stream",
      b"/../../etc/passwd",
      b"/%2e%2e/%2e%2e/etc/passwd",
      b"/static/..%5c..%5cx",
      b"//x",
      b"*",
    ),
  )
  body = _choose(
    rng,
    (
      b'{"task": "anna"}',
      b'{"task": "\\ud800"}',
      b'{"task": 1e400}',
      b"[" * 9_000,
      b"\xff",
      b"",
      b'{"task": "' + b"../" * 99 + b'"}',
    ),
  )
  request = _request(body, path=path, kind=b"application/json")
  method = _choose(rng, (b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"X"))
  return request.replace(b"POST", method, 1)


_MAKERS = (_audio, _audio, _framing, _framing, _words, _whole, _coding, _routes)


def _status(answer):
  """0 where the server hung up without a word."""
  found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
  return int(found[1]) if found else 0


def _exchange(port, request):
  """All that the server says until it hangs up."""
  with socket.create_connection(("127.0.0.1", port), 20) as client:
    parts = []
    with contextlib.suppress(ConnectionError):
      client.sendall(request)
    with contextlib.suppress(ConnectionError):
      while part := client.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def _check_well(port):
  answer = _exchange(port, _request(_form(WAV)))
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
    said = _choose(rng, _SAID)
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
        odd[0] = _choose(rng, (np.nan, np.inf, 1e30, 0))
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
  maker = _MAKERS[int(rng.integers(len(_MAKERS)))]
  request = maker(rng, sounds)
  return _status(_exchange(port, request))


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
  for maker in {*_MAKERS}:
    one, two = (maker(np.random.default_rng(7), sounds) for _ in range(2))
    assert one == two
    made = {maker(np.random.default_rng(n), sounds) for n in range(100)}
    assert len(made) > 25, maker
  assert len({_messages(np.random.default_rng(n)) for n in range(100)}) > 60
