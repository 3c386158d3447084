"""Lists of models, whose store may be slow, hang, or be gone."""

import contextlib
import threading
import time

import fake_engine as fake
import httpx2
import live_server as live
import pytest

from hra.serve import interface, keys


class _Slow(fake.Engine):
  """Lists nothing, loads nobody, while `answers` is clear."""

  def __init__(self):
    super().__init__()
    self.answers = threading.Event()
    self.gone = False

  def tasks(self):
    self.listings += 1
    assert self.answers.wait(30)
    if self.gone:
      raise interface.StoreGone("/secret", expected="a folder", got="none")
    return sorted(self.known)

  def load(self, task):
    future = super().load(task)
    if not self.answers.is_set():
      future = type(future)()
      self.futures.append(future)
    return future


@pytest.fixture
def engine():
  made = _Slow()
  yield made
  made.answers.set()


@pytest.fixture
def serve(engine, tmp_path):
  """Starts a server of one administrator; hands out a client."""
  with contextlib.ExitStack() as stack:

    def start(**limits):
      path = tmp_path / "keys.json"
      token = keys.add(path, "ops", speakers=None, admin=True)
      parts = live.service(engine, keys=keys.Keys.open(path), limits=limits)
      running = stack.enter_context(live.serving(parts))
      stack.callback(engine.answers.set)
      client = httpx2.Client(
        base_url=running.url,
        timeout=20,
        headers={"Authorization": f"Bearer {token}"},
      )
      return running, stack.enter_context(client)

    yield start


def _refused(response):
  assert response.status_code == 503, response.text
  assert response.json()["error"]["code"] == "store_unreachable"
  assert response.headers["retry-after"] == "5"


def test_listings_are_asked_for_once_a_second(engine, serve, monkeypatch):
  _, client = serve()
  engine.answers.set()
  for _ in range(5):
    assert len(client.get("/v1/models").json()["data"]) == 5
  assert engine.listings == 1
  monkeypatch.setattr("hra.serve.http.listing._TOLD_SECONDS", 0.0)
  engine.known.append("new")
  assert len(client.get("/v1/models").json()["data"]) == 6


def test_that_a_store_cannot_be_listed_is_remembered_too(engine, serve):
  _, client = serve()
  engine.answers.set()
  engine.gone = True
  for _ in range(3):
    _refused(client.get("/v1/models"))
  assert engine.listings == 1


def test_a_store_that_hangs_keeps_nobody_waiting_for_ever(
  engine, serve, monkeypatch
):
  monkeypatch.setattr("hra.serve.http.listing._TOLD_SECONDS", 0.0)
  running, client = serve(answer_seconds=0.5)
  begun = time.monotonic()
  _refused(client.get("/v1/models"))
  assert time.monotonic() - begun > 0.4
  begun = time.monotonic()
  for _ in range(20):  # known by now
    _refused(client.get("/v1/models/tiny:anna"))
  assert time.monotonic() - begun < 5
  assert engine.listings == 1
  assert client.get("/v1/models/tiny").status_code == 200
  assert "no answer within 0.5 s" in running.requests()[0]["detail"]
  engine.answers.set()
  _wait(lambda: client.get("/v1/models").status_code == 200)


@pytest.mark.parametrize(
  ("method", "path"),
  [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny:anna"),
    ("POST", "/admin/load"),
  ],
)
def test_who_hangs_up_is_waited_for_no_more(engine, serve, method, path):
  running, client = serve()
  for _ in range(3):
    with pytest.raises(httpx2.ReadTimeout):
      client.request(method, path, json={"task": "anna"}, timeout=0.3)
  _wait(lambda: len(running.requests()) == 3)
  assert {line["status"] for line in running.requests()} == {499}
  assert engine.listings <= 1
  _wait(lambda: all(future.cancelled() for future in engine.futures))


def test_who_hangs_up_leaves_others_their_answer(engine, serve):
  running, client = serve()
  with pytest.raises(httpx2.ReadTimeout):
    client.get("/v1/models", timeout=0.3)
  _wait(running.requests)
  threading.Timer(0.3, engine.answers.set).start()
  assert len(client.get("/v1/models").json()["data"]) == 5
  assert engine.listings == 1


def test_a_load_that_takes_too_long(serve):
  _, client = serve(answer_seconds=0.3)
  response = client.post("/admin/load", json={"task": "anna"})
  assert response.status_code == 504
  assert response.json()["error"]["code"] == "answer_timeout"


def test_a_listing_that_hangs_keeps_no_server_from_its_end(engine):
  with (
    live.serving(live.service(engine)) as running,
    pytest.raises(httpx2.ReadTimeout),
  ):
    httpx2.get(f"{running.url}/v1/models", timeout=0.3)
  assert not engine.answers.is_set()
  assert engine.closed


def _wait(holds):
  deadline = time.monotonic() + 10
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.02)
