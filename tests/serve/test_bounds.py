"""Requests that are too large, too slow or too many; addresses."""

import asyncio
import json

import pytest
from starlette.exceptions import HTTPException

from hra.config.serve import LimitsConfig
from hra.serve.http import bounds
from hra.serve.http.bounds import Bounds, RateLimiter

_MIB = 1 << 20
_LIMITS = LimitsConfig(body_mib=1.0, body_seconds=0.3, bodies_mib=1.5)


class _Client:
  """One request of an ASGI server, and what it is answered."""

  def __init__(self, *messages, headers=()):
    self.sent = []
    self._messages = list(messages)
    self.scope = {"type": "http", "headers": list(headers)}

  async def receive(self):
    if not self._messages:
      await asyncio.sleep(60)
    message = self._messages.pop(0)
    if isinstance(message, float):
      await asyncio.sleep(message)
      return await self.receive()
    return message

  async def send(self, message):
    self.sent.append(message)

  async def ask(self, app):
    await app(self.scope, self.receive, self.send)
    return self

  @property
  def status(self):
    return self.sent[0]["status"]

  @property
  def closes(self):
    return (b"connection", b"close") in self.sent[0]["headers"]

  @property
  def body(self):
    assert [m.get("more_body", False) for m in self.sent[1:]][-1] is False
    return b"".join(m["body"] for m in self.sent[1:])

  @property
  def left(self):
    return len(self._messages)


def _part(size, *, more=True):
  return {"type": "http.request", "body": bytes(size), "more_body": more}


def _stated(size):
  return [(b"content-length", str(size).encode())]


_CHUNKED = [(b"transfer-encoding", b"chunked")]


async def _respond(send, status, body=b""):
  await send({"type": "http.response.start", "status": status, "headers": []})
  await send({"type": "http.response.body", "body": body})


async def _count(scope, receive, send):
  """Answers with the bytes of the request."""
  count, more = 0, True
  while more:
    message = await receive()
    count += len(message["body"])
    more = message["more_body"]
  await _respond(send, 200, str(count).encode())


async def _deny(scope, receive, send):
  await _respond(send, 401, b"no")


def test_what_fits_arrives_whole():
  app = Bounds(_count, _LIMITS)
  size = _MIB
  client = _Client(
    _part(size // 2), _part(size // 2, more=False), headers=_stated(size)
  )
  asyncio.run(client.ask(app))
  assert (client.status, client.body) == (200, str(size).encode())
  assert not client.closes
  client = _Client(_part(0, more=False))
  asyncio.run(client.ask(app))
  assert (client.status, client.body, client.closes) == (200, b"0", False)


def test_what_says_that_it_is_too_large_reaches_nobody():
  async def app(scope, receive, send):
    raise AssertionError

  client = _Client(_part(10, more=False), headers=_stated(_MIB + 1))
  asyncio.run(client.ask(Bounds(app, _LIMITS)))
  assert client.status == 413
  assert client.closes
  error = json.loads(client.body)["error"]
  assert error["message"] == "The request is larger than 1 MiB."
  assert error["type"] == "invalid_request_error"


def test_what_turns_out_to_be_too_large_is_not_read_on():
  parts = [_part(_MIB // 4) for _ in range(40)]
  client = _Client(*parts, headers=_CHUNKED)
  asyncio.run(client.ask(Bounds(_count, _LIMITS)))
  assert client.status == 413
  # Five show it; then as much is let go by as a request may have.
  assert 40 - client.left == 5 + 4


@pytest.mark.parametrize("drip", [0.2, 60.0])
def test_what_comes_too_slowly(drip):
  messages = [_part(1), drip] * 20
  client = _Client(*messages, headers=_stated(1000))

  async def run():
    await asyncio.wait_for(client.ask(Bounds(_count, _LIMITS)), 3)

  asyncio.run(run())
  assert client.status == 408
  assert client.closes
  assert b"0.3 s" in client.body


def test_the_application_answers_in_its_own_words():
  async def app(scope, receive, send):
    try:
      await _count(scope, receive, send)
    except HTTPException as error:
      await _respond(send, 422, error.detail.encode())

  client = _Client(_part(2 * _MIB, more=False), headers=_CHUNKED)
  asyncio.run(client.ask(Bounds(app, _LIMITS)))
  assert (client.status, client.body) == (
    422,
    b"the request is larger than 1 MiB",
  )


def test_an_early_answer_is_heard_and_ends_the_connection():
  for messages, read in (
    ([_part(100)] * 9 + [_part(1, more=False)], 10),
    ([_part(_MIB)] * 9, 1),
    ([{"type": "http.disconnect"}, _part(1)], 1),
    ([60.0], 1),
  ):
    client = _Client(*messages, headers=_stated(1000))
    asyncio.run(client.ask(Bounds(_deny, _LIMITS)))
    assert (client.status, client.body, client.closes) == (401, b"no", True)
    # The answer is out before the rest is read.
    assert client.sent[1] == {
      "type": "http.response.body",
      "body": b"no",
      "more_body": True,
    }
    assert len(messages) - client.left == read


def test_a_request_without_a_body_keeps_its_connection():
  for headers in ([], _stated(0), [(b"content-length", b"000")]):
    client = _Client(headers=headers)
    asyncio.run(client.ask(Bounds(_deny, _LIMITS)))
    assert (client.status, client.closes, len(client.sent)) == (401, False, 2)


def test_all_requests_together():
  entered = 0

  async def run():
    go_on = asyncio.Event()

    async def app(scope, receive, send):
      nonlocal entered
      while (await receive())["more_body"]:
        pass
      entered += 1
      await go_on.wait()
      await _respond(send, 200)

    bounded = Bounds(app, _LIMITS)
    first = _Client(_part(_MIB, more=False), headers=_CHUNKED)
    task = asyncio.create_task(first.ask(bounded))
    while not entered:
      await asyncio.sleep(0)
    for _ in range(3):
      other = await _Client(
        _part(_MIB // 2), _part(1, more=False), headers=_CHUNKED
      ).ask(bounded)
      assert other.status == 503
      assert (b"retry-after", b"1") in other.sent[0]["headers"]
    go_on.set()
    await task
    assert first.status == 200
    last = _Client(_part(_MIB, more=False), headers=_CHUNKED)
    await last.ask(bounded)
    assert last.status == 200

  asyncio.run(run())


def test_bytes_are_given_back_however_a_request_ends():
  async def fails(scope, receive, send):
    await receive()
    raise ZeroDivisionError

  app = Bounds(fails, _LIMITS)
  for _ in range(5):
    client = _Client(_part(_MIB, more=False), headers=_CHUNKED)
    with pytest.raises(ZeroDivisionError):
      asyncio.run(client.ask(app))


def test_who_waits_for_a_client_to_leave_is_not_hurried():
  async def app(scope, receive, send):
    while (await receive())["more_body"]:
      pass
    message = await receive()
    await _respond(send, 200, message["type"].encode())

  client = _Client(
    _part(5, more=False), 0.5, {"type": "http.disconnect"}, headers=_stated(5)
  )
  asyncio.run(client.ask(Bounds(app, _LIMITS)))
  assert client.body == b"http.disconnect"


def test_a_websocket_that_says_little_for_ever_is_hung_up_on():
  limits = LimitsConfig(max_seconds=0.2, answer_seconds=0.2)

  async def app(scope, receive, send):
    while (await receive())["type"] != "websocket.disconnect":
      pass

  client = _Client(*[{"type": "websocket.receive"}, 0.1] * 50)
  client.scope["type"] = "websocket"
  asyncio.run(asyncio.wait_for(client.ask(Bounds(app, limits)), 3))
  assert client.sent[-1]["code"] == 1008


class _Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def _limiter(rate, burst):
  clock = _Clock()
  limits = LimitsConfig(requests_per_minute=rate, burst=burst)
  return RateLimiter(limits, clock=clock), clock


def test_a_burst_then_the_rate():
  limiter, clock = _limiter(60.0, 3)
  assert [limiter.wait_of("a") for _ in range(5)] == [0, 0, 0, 1, 1]
  assert limiter.wait_of("b") == 0
  clock.now += 0.25
  assert limiter.wait_of("a") == pytest.approx(0.75)
  clock.now += 0.75
  assert [limiter.wait_of("a") for _ in range(2)] == [0, 1]
  clock.now += 3600
  assert [limiter.wait_of("a") > 0 for _ in range(4)] == [
    False,
    False,
    False,
    True,
  ]


def test_the_time_that_it_tells_is_enough():
  limiter, clock = _limiter(7.0, 1)
  asked = 0
  began = clock.now
  for _ in range(50):
    wait = limiter.wait_of("a")
    asked += not wait
    clock.now += wait * (1 + 1e-9)
  assert asked == 25
  assert clock.now - began == pytest.approx(25 * 60 / 7)


def test_no_limit():
  limiter, _ = _limiter(0.0, 1)
  assert not any(limiter.wait_of("a") for _ in range(1000))


def test_memory_does_not_grow_with_those_who_ask():
  limiter, _ = _limiter(60.0, 1)
  for number in range(30_000):
    limiter.wait_of("steady")
    limiter.wait_of(f"{number}")
  assert len(limiter._buckets) == bounds._BUCKETS
  assert limiter.wait_of("steady") > 0


@pytest.mark.parametrize(
  ("host", "address"),
  [
    ("192.0.2.7", "192.0.2.7"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
    ("::ffff:192.0.2.7", "192.0.2.7"),
    ("testclient", "testclient"),
  ],
)
def test_addresses(host, address):
  assert bounds.address_of({"client": (host, 1)}) == address


def test_no_address():
  assert bounds.address_of({"client": None}) == ""
