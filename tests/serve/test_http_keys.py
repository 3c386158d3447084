"""Keys over real connections: who may ask for whom, who administrates, how often."""

import contextlib

import fake_engine as fake
import httpx2
import live_server as live
import pytest

from hra.serve import keys

WAVE = live.wave()
FILE = {"file": ("speech.wav", live.wav(WAVE))}
POST = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def engine():
  return fake.Engine([*fake.SPEAKERS, fake.BROKEN])


@pytest.fixture(scope="module")
def running(engine):
  limits = {"answer_seconds": 1.0, "max_seconds": 5.0, "body_mib": 1.0}
  with live.serving(live.service(engine, limits=limits)) as server:
    yield server


@pytest.fixture(scope="module")
def client(running):
  with httpx2.Client(base_url=running.url, timeout=30) as made:
    yield made


@pytest.fixture(scope="module")
def locked(engine, tmp_path_factory):
  """A server with keys, and a client for each."""
  path = tmp_path_factory.mktemp("keys") / "keys.json"
  tokens = {
    "annas": keys.add(path, "annas", speakers=["anna", "nemo"]),
    "everybodys": keys.add(path, "everybodys", speakers=None),
    "operators": keys.add(path, "operators", speakers=[], admin=True),
  }
  own = fake.Engine()
  with (
    live.serving(live.service(own, keys=keys.Keys.open(path))) as server,
    contextlib.ExitStack() as stack,
  ):
    clients = {
      name: stack.enter_context(
        httpx2.Client(
          base_url=server.url, headers={"Authorization": f"Bearer {token}"}
        )
      )
      for name, token in (tokens | {"nobodys": "hra_0_0"}).items()
    }
    yield server, own, clients


def _post(client, **fields):
  return client.post(POST, data={"model": "tiny:anna"} | fields, files=FILE)


def _error(response, status, code):
  assert response.status_code == status, response.text
  error = response.json()["error"]
  assert set(error) == {"message", "type", "param", "code"}
  assert error["code"] == code, error
  return error


def test_administration_is_closed_without_keys(client, engine):
  for call in (
    client.get("/admin/resident"),
    client.post("/admin/load", json={"task": "anna"}),
    client.post("/admin/unload", json={"task": "anna"}),
  ):
    _error(call, 403, "admin_only")
  assert engine.loaded == []


def test_administration(locked):
  _, engine, clients = locked
  operator = clients["operators"]
  loaded = operator.post("/admin/load", json={"task": "bert"})
  told = {"task": "bert", "version": 3, "fingerprint": "ab12"}
  assert loaded.json() == told
  assert operator.get("/admin/resident").json()["data"] == [told]
  for there in (True, False):
    unloaded = operator.post("/admin/unload", json={"task": "bert"})
    assert unloaded.json() == {"task": "bert", "unloaded": there}
  _error(
    operator.post("/admin/load", json={"task": "nemo"}),
    404,
    "model_not_found",
  )
  for content in (b"", b"[]", b'{"task": ""}', b'{"task": "\\ud800"}'):
    response = operator.post("/admin/load", content=content)
    _error(response, 400, "bad_field")
  response = operator.post("/admin/load", content=b" " * 20_000)
  _error(response, 413, "too_long")
  for name in ("annas", "everybodys"):
    _error(clients[name].get("/admin/resident"), 403, "admin_only")
    _error(clients[name].get("/metrics"), 403, "admin_only")
  assert operator.get("/metrics").status_code == 200
  assert engine.loaded == []


def test_who_has_no_key_learns_nothing(locked):
  server, engine, clients = locked
  before = len(engine.asked), engine.listings
  for client in (clients["nobodys"], httpx2.Client(base_url=server.url)):
    for response in (
      _post(client),
      client.get("/v1/models"),
      client.get("/v1/models/tiny:anna"),
      client.get("/metrics"),
      client.get("/admin/resident"),
      client.post("/admin/load", json={"task": "anna"}),
    ):
      _error(response, 401, "invalid_api_key")
      assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/health/live").status_code == 200
  assert (len(engine.asked), engine.listings) == before


def test_a_key_has_its_own_speakers_and_no_others(locked):
  _, engine, clients = locked
  annas = clients["annas"]
  listed = annas.get("/v1/models").json()["data"]
  assert [model["id"] for model in listed] == ["tiny", "tiny:anna"]
  assert _post(annas).status_code == 200
  before, listings = len(engine.asked), engine.listings
  for fallback in ("false", "true"):
    there = _post(annas, model="tiny:bert", fallback=fallback)
    nowhere = _post(annas, model="tiny:b3rt", fallback=fallback)
    assert there.content == nowhere.content.replace(b"b3rt", b"bert")
    _error(there, 404, "model_not_found")
  assert (
    annas.get("/v1/models/tiny:bert").content
    == _post(annas, model="tiny:bert").content
  )
  assert (len(engine.asked), engine.listings) == (before, listings)
  allowed = _post(annas, model="tiny:nemo")  # no such speaker, but its own
  assert allowed.content == there.content.replace(b"bert", b"nemo")


def test_each_key_has_a_rate_of_its_own(tmp_path):
  path = tmp_path / "keys.json"
  tokens = [keys.add(path, name, speakers=None) for name in "ab"]
  parts = live.service(
    fake.Engine(),
    keys=keys.Keys.open(path),
    limits={"requests_per_minute": 1.0, "burst": 2},
  )
  with live.serving(parts) as server:
    first, second = (
      httpx2.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {token}"}
      )
      for token in tokens
    )
    with first, second:
      assert _post(first).status_code == 200
      assert first.get("/v1/models").status_code == 200
      refused = _post(first)
      error = _error(refused, 429, "rate_limit_exceeded")
      assert error["type"] == "rate_limit_error"
      assert 50 < int(refused.headers["retry-after"]) <= 60
      assert _post(second).status_code == 200
