"""Connections of a live server: slow ones, idle ones, too many, and unread answers."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from hra.config.serve import LimitsConfig
from hra.serve.http import bounds, connection
from hra.serve.http.bounds import Bounds

_GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
_LARGE = 64 << 20


async def _app(scope, receive, send):
  """/: ok; /slow: after a second, to who is let in; /some, /large: 8, 64 MiB; a POST:
  its size."""
  if scope["type"] == "lifespan":
    return
  if scope["type"] == "websocket":
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
      await send({"type": "websocket.send", "text": "heard"})
    return
  if scope["path"] == "/slow":
    assert bounds.admit(scope, "anna")
    await asyncio.sleep(1.0)
  count, more = 0, scope["method"] == "POST"
  while more:
    message = await receive()
    count += len(message.get("body", b""))
    more = message.get("more_body", False)
  sizes = {"/large": _LARGE, "/some": _LARGE // 8}
  size = sizes.get(scope["path"])
  body = bytes(size) if size else b"%d" % count
  length = str(len(body)).encode()
  start = {"type": "http.response.start", "status": 200}
  await send({**start, "headers": [(b"content-length", length)]})
  await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def _server(loop="asyncio", **limits):
  limits = LimitsConfig(**limits)
  config = uvicorn.Config(
    Bounds(_app, limits),
    port=0,
    http=connection.limited(limits),
    ws=connection.Stream,
    log_config=None,
    lifespan="off",
    timeout_graceful_shutdown=1,
    timeout_keep_alive=1,
    loop=loop,
  )
  server = uvicorn.Server(config)
  thread = threading.Thread(target=server.run, daemon=True)
  thread.start()
  while not server.started:
    time.sleep(0.01)
  server.port = server.servers[0].sockets[0].getsockname()[1]
  try:
    yield server
  finally:
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@contextlib.contextmanager
def _client(server):
  with socket.create_connection(("127.0.0.1", server.port), 10) as client:
    yield client


def _answer(client):
  """All that comes until the server hangs up."""
  parts = []
  with contextlib.suppress(ConnectionResetError):
    while part := client.recv(1 << 16):
      parts.append(part)
  return b"".join(parts)


def _ask(client, request=_GET):
  """The body of an answer, of one byte."""
  client.sendall(request)
  return _heard(client)


def _heard(client):
  answer = b""
  while not answer.partition(b"\r\n\r\n")[2]:
    part = client.recv(1 << 16)
    assert part, answer
    answer += part
  assert answer.startswith(b"HTTP/1.1 200 ")
  return answer.partition(b"\r\n\r\n")[2]


def _wait_for(condition):
  for _ in range(500):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_head_has_its_time(loop):
  if loop == "uvloop":
    pytest.importorskip("uvloop")
  with _server(loop, header_seconds=0.5) as server, _client(server) as client:
    began = time.monotonic()
    client.sendall(b"GET / HTTP/1.1\r\n")
    answer = _answer(client)
    assert 0.3 < time.monotonic() - began < 5
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"not begun within 0.5 s" in answer


def test_dripping_does_not_prolong_it():
  with _server(header_seconds=0.5) as server, _client(server) as client:
    client.settimeout(0.1)
    answer = b""
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
      for byte in b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100:
        client.sendall(bytes([byte]))
        with contextlib.suppress(TimeoutError):
          answer += client.recv(1 << 16)
          if answer:
            break
    assert time.monotonic() - began < 3
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_who_says_nothing_is_hung_up_on_without_a_word():
  with _server(header_seconds=0.3) as server, _client(server) as client:
    assert _answer(client) == b""


def test_the_next_head_has_its_time_too():
  with _server(header_seconds=0.5) as server, _client(server) as client:
    for _ in range(4):
      assert _ask(client) == b"0"
      time.sleep(0.2)
    client.sendall(b"GET / HT")
    assert _answer(client).startswith(b"HTTP/1.1 408 ")


def test_an_answer_takes_as_long_as_it_takes():
  with _server(header_seconds=0.3) as server, _client(server) as client:
    assert _ask(client, _GET.replace(b"/", b"/slow", 1)) == b"0"
    assert _ask(client) == b"0"


def test_a_body_has_its_time():
  head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nab"
  with _server(body_seconds=0.4) as server, _client(server) as client:
    client.sendall(head)
    assert b"408" in _answer(client).partition(b"\r\n")[0]


def test_what_is_sent_after_an_answer_keeps_no_connection():
  """A large body, refused from its head, goes on in drips."""
  head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n"
  with _server(header_seconds=0.5, body_mib=1.0) as server:
    with _client(server) as client:
      client.sendall(head)
      assert client.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
      began = time.monotonic()
      with contextlib.suppress(ConnectionError):
        for _ in range(100):
          client.sendall(b"x")
          time.sleep(0.05)
      assert time.monotonic() - began < 4
    _wait_for(lambda: not server.server_state.connections)


def test_a_large_body_reads_its_refusal():
  """Whoever sends twice what may be sent still reads why it was refused."""
  body = bytes(2 << 20)
  head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
  with _server(body_mib=1.5) as server:
    for _ in range(5):
      with _client(server) as client:
        client.sendall(head + body)
        assert _answer(client).startswith(b"HTTP/1.1 413 ")


def test_idle_connections_keep_nobody_out():
  limits = {"connections": 8, "header_seconds": 30.0}
  with _server(**limits) as server, contextlib.ExitStack() as stack:
    idle = [stack.enter_context(_client(server)) for _ in range(30)]
    for client in idle:
      with contextlib.suppress(ConnectionError):
        client.sendall(b"GET / HTTP/1.1\r\n")
    for _ in range(20):
      with _client(server) as asking:
        assert _ask(asking) == b"0"
    assert len(server.server_state.connections) <= 9


_UPGRADE = (
  b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
  b"sec-websocket-version: 13\r\n"
  b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def _frame(code, data=b""):
  return bytes([0x80 | code, 0x80 | len(data)]) + bytes(4) + data


def _flood(client, data, *, seconds):
  """Sends it again and again, and reads nothing."""
  client.settimeout(0.1)
  until = time.monotonic() + seconds
  with contextlib.suppress(OSError):
    while time.monotonic() < until:
      with contextlib.suppress(TimeoutError):
        client.sendall(data)


def _unread(client):
  client.sendall(_GET.replace(b"/", b"/some", 1) * 2)


def _silent(client):
  client.sendall(_UPGRADE)
  assert client.recv(1 << 16).startswith(b"HTTP/1.1 101 ")


def _pinging(client):
  _silent(client)
  _flood(client, _frame(9, bytes(125)) * 500, seconds=0.3)


@pytest.mark.parametrize("occupy", [_unread, _silent, _pinging])
def test_who_was_not_let_in_keeps_nobody_out(occupy):
  with _server(connections=3) as server, contextlib.ExitStack() as stack:
    for _ in range(3):
      client = socket.socket()
      stack.callback(client.close)
      client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
      client.connect(("127.0.0.1", server.port))
      occupy(client)
    for _ in range(3):
      asking = stack.enter_context(_client(server))
      assert _ask(asking) == b"0"
    _wait_for(lambda: len(server.server_state.connections) <= 3)


def test_unread_pongs_take_no_memory():
  with _server() as server, _client(server) as client:
    _silent(client)
    _flood(client, _frame(9, bytes(125)) * 500, seconds=1.0)
    (stream,) = server.server_state.connections
    assert not stream.writable.is_set()
    assert stream.transport.get_write_buffer_size() < 1 << 20


def test_a_stream_that_reads_nothing_is_ended(monkeypatch):
  monkeypatch.setattr(connection, "_UNREAD", 0.5)
  with _server() as server, _client(server) as client:
    _silent(client)
    _flood(client, _frame(9, bytes(125)) * 500, seconds=0.5)
    _flood(client, _frame(1, b"a"), seconds=0.1)
    _wait_for(lambda: not server.server_state.connections)


def test_a_stream_whose_end_is_not_read_is_ended(monkeypatch):
  monkeypatch.setattr(connection, "_UNREAD", 0.5)
  with _server() as server, _client(server) as client:
    _silent(client)
    _flood(client, _frame(9, bytes(125)) * 500, seconds=0.5)
    _flood(client, _frame(8), seconds=0.1)
    _wait_for(lambda: not server.server_state.connections)


def test_crumbs_of_a_request():
  head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
  with _server() as server:
    with _client(server) as client:
      with contextlib.suppress(ConnectionError):
        client.sendall(head + b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\n")
      assert client.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    with _client(server) as client:
      small = b"20\r\n" + bytes(32) + b"\r\n"
      client.sendall(head + small * 5_000 + b"0\r\n\r\n")
      assert _heard(client) == b"160000"


@pytest.mark.parametrize("code", [0, 1, 2, 9, 10])
def test_crumbs_of_a_stream(code):
  with _server() as server, _client(server) as client:
    _silent(client)
    first = bytes([2, 0x80]) + bytes(4) if code == 0 else b""
    rest = bytes([code if code == 0 else 0x80 | code, 0x80]) + bytes(4)
    with contextlib.suppress(ConnectionError):
      client.sendall(first + rest * 5_000)
    began = time.monotonic()
    _wait_for(lambda: not server.server_state.connections)
    assert time.monotonic() - began < 5


def test_no_connection_is_read_for_long(monkeypatch):
  sizes = []
  whole = connection.Connection.data_received

  def data_received(self, data):
    sizes.append(len(data))
    whole(self, data)

  monkeypatch.setattr(connection.Connection, "data_received", data_received)
  head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"
  with _server() as server, _client(server) as client:
    client.sendall(head + bytes(1_000_000))
    assert _heard(client)[:1] == b"1"
  assert sum(sizes) == len(head) + 1_000_000
  assert max(sizes) <= connection._READ


def test_health_is_told_however_many_ask():
  with _server(connections=2) as server, contextlib.ExitStack() as stack:
    slow = [stack.enter_context(_client(server)) for _ in range(2)]
    for client in slow:
      client.sendall(_GET.replace(b"/", b"/slow", 1))
    _wait_for(lambda: len(server.server_state.tasks) == 2)
    idle = [stack.enter_context(_client(server)) for _ in range(20)]
    with _client(server) as client:
      assert _ask(client, _GET.replace(b"/", b"/health/live", 1)) == b"0"
    for request in (_GET, _UPGRADE):
      with _client(server) as client:
        client.sendall(request)
        assert _answer(client).startswith(b"HTTP/1.1 503 ")
    assert len(server.server_state.connections) <= 2 + connection._SPARE
    del idle


def test_too_many_requests_at_once():
  with _server(connections=4) as server, contextlib.ExitStack() as stack:
    slow = [stack.enter_context(_client(server)) for _ in range(4)]
    for client in slow:
      client.sendall(_GET.replace(b"/", b"/slow", 1))
    _wait_for(lambda: len(server.server_state.tasks) == 4)
    for _ in range(10):
      with _client(server) as client:
        client.sendall(_GET)
        answer = _answer(client)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
    for client in slow:
      assert _heard(client) == b"0"
    with _client(server) as client:
      assert _ask(client) == b"0"


def test_answers_that_nobody_reads():
  with _server(answer_seconds=1.0) as server, _client(server) as client:
    client.sendall(_GET.replace(b"/", b"/large", 1))
    _wait_for(lambda: server.server_state.connections)
    _wait_for(lambda: not server.server_state.connections)


def test_answers_that_are_read_slowly_arrive():
  with _server(answer_seconds=1.0) as server, _client(server) as client:
    client.sendall(_GET.replace(b"/", b"/large", 1))
    size = 0
    while size < _LARGE:
      size += len(client.recv(1 << 24))
      time.sleep(0.02)


def test_a_websocket_is_none_of_a_heads_affair():
  sync = pytest.importorskip("websockets.sync.client")
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_server(header_seconds=0.3))
    url = f"ws://127.0.0.1:{server.port}/"
    stream = stack.enter_context(sync.connect(url))
    for _ in range(4):
      time.sleep(0.2)
      stream.send("a")
      assert stream.recv(timeout=5) == "heard"


@pytest.mark.parametrize(
  "said",
  [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n"
    b"connection: upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  ],
)
def test_what_is_no_request(said):
  with _server(header_seconds=0.5) as server:
    with _client(server) as client:
      with contextlib.suppress(ConnectionError):
        client.sendall(said)
      client.settimeout(8)
      assert b" 500 " not in _answer(client).partition(b"\r\n")[0]
    with _client(server) as client:
      assert _ask(client) == b"0"
