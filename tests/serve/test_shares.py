"""What one key may take of a server, so that there is some left for others."""

import asyncio
import concurrent.futures
import contextlib
import json
import time

import fake_engine as fake
import httpx2
import live_server as live
import pytest
from websockets.sync import client as streams

from hra.config.serve import LimitsConfig
from hra.serve import interface, keys
from hra.serve.http import bounds, stream
from hra.serve.http.held import Budget

WAV = live.wav(live.wave())


@pytest.fixture
def tokens(tmp_path):
  path = tmp_path / "keys.json"
  told = {name: keys.add(path, name, speakers=None) for name in ("a", "b")}
  return told | {"path": path}


@contextlib.contextmanager
def _running(tokens, **changes):
  engine = fake.Engine()
  held = keys.Keys.open(tokens["path"])
  with live.serving(live.service(engine, keys=held, **changes)) as running:
    yield running
    engine.gate.set()


def _post(running, token):
  return httpx2.post(
    f"{running.url}/v1/audio/transcriptions",
    data={"model": "tiny"},
    files={"file": ("a.wav", WAV)},
    headers={"Authorization": f"Bearer {token}"},
    timeout=30,
  )


def _stream(running, stack, token):
  url = running.url.replace("http", "ws") + "/v1/audio/stream"
  socket = stack.enter_context(streams.connect(url))
  socket.send(json.dumps({"type": "start", "model": "tiny", "token": token}))
  return socket, json.loads(socket.recv(timeout=10))


def _wait_for(condition):
  for _ in range(1_000):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError


def test_requests_and_streams_at_once(tokens):
  with (
    _running(tokens, limits={"at_once": 2}) as running,
    contextlib.ExitStack() as stack,
  ):
    engine = running.service.engine
    engine.gate.clear()
    threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(2))
    first = threads.submit(_post, running, tokens["a"])
    _wait_for(lambda: engine.asked)
    socket, told = _stream(running, stack, tokens["a"])
    assert told == {"type": "ready"}
    refused = _post(running, tokens["a"])
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "too_many_at_once"
    _, told = _stream(running, stack, tokens["a"])
    assert (told["type"], told["status"]) == ("error", 429)
    _, told = _stream(running, stack, tokens["b"])
    assert told == {"type": "ready"}
    engine.gate.set()
    assert first.result().status_code == 200
    socket.close()
    for _ in range(3):
      _wait_for(lambda: _post(running, tokens["a"]).status_code == 200)


def test_pieces_that_wait_for_the_engine(tokens):
  """One key takes half of the queue."""
  with (
    _running(tokens) as running,
    concurrent.futures.ThreadPoolExecutor(2) as threads,
  ):
    engine = running.service.engine
    engine.gate.clear()
    assert running.service._pieces.share == 128
    running.service._pieces.share = 2
    waiting = [threads.submit(_post, running, tokens["a"]) for _ in range(2)]
    _wait_for(lambda: len(engine.asked) == 2)
    assert _post(running, tokens["a"]).status_code == 429
    engine.gate.set()
    assert {each.result().status_code for each in waiting} == {200}
    assert _post(running, tokens["a"]).status_code == 200


def test_what_is_held_of_one_client():
  budget = Budget(100, share=50)
  with budget.hold("a") as first, budget.hold("a") as second:
    first.take(60)  # one alone may have all that there is
    with pytest.raises(interface.TooMany):
      second.take(1)
    with budget.hold("b") as other:
      other.take(40)
    first.release(20)
    second.take(10)
  assert not budget.held
  assert not budget.held_of


def test_bodies_of_one_client():
  limits = LimitsConfig(body_mib=1.0, bodies_mib=2.0)
  statuses = {}

  async def run():
    go_on = asyncio.Event()

    async def app(scope, receive, send):
      assert bounds.admit(scope, scope["who"])
      while (await receive())["more_body"]:
        pass
      await go_on.wait()
      await send({"type": "http.response.start", "status": 200, "headers": []})
      await send({"type": "http.response.body", "body": b""})

    bounded = bounds.Bounds(app, limits)

    async def ask(name, who):
      async def receive():
        body = bytes(600_000)
        return {"type": "http.request", "body": body, "more_body": False}

      async def send(message):
        statuses.setdefault(name, message.get("status"))

      headers = [(b"content-length", b"600000")]
      scope = {"type": "http", "headers": headers, "who": who}
      await bounded(scope, receive, send)

    tasks = [
      asyncio.create_task(ask(name, name[0])) for name in ("a1", "a2", "b1")
    ]
    await asyncio.sleep(0.05)
    go_on.set()
    await asyncio.gather(*tasks)
    await ask("a3", "a")
    assert not bounded.held
    assert not bounded.held_of
    assert not bounded._running

  asyncio.run(run())
  assert statuses == {"a1": 200, "a2": 429, "b1": 200, "a3": 200}


def test_strangers_are_told_so_as_often_as_others_may_ask(tokens):
  limits = {"requests_per_minute": 1.0, "burst": 2}
  with _running(tokens, limits=limits) as running:
    statuses = [_post(running, "hra_0_0").status_code for _ in range(3)]
    assert statuses == [401, 401, 429]
    assert _post(running, tokens["a"]).status_code == 200


def test_a_stream_of_a_key_that_is_revoked_ends(tokens, monkeypatch):
  monkeypatch.setattr(stream, "_CHECK_SECONDS", 0.0)
  with _running(tokens) as running, contextlib.ExitStack() as stack:
    socket, _ = _stream(running, stack, tokens["a"])
    socket.send(bytes(320))
    keys.revoke(tokens["path"], "a")
    socket.send(bytes(320))
    told = json.loads(socket.recv(timeout=10))
    assert (told["type"], told["status"]) == ("error", 401)
