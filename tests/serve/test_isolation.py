"""Clients that want what isn't theirs: other speakers, administration, files."""

import asyncio
import contextlib
import time

import fake_engine as fake
import live_server as live
import numpy as np
import pytest
from starlette.testclient import TestClient

from hra.serve import keys
from hra.serve.http import app

WAVE = live.wave()
WAV = live.wav(WAVE)
_PATH = "/v1/audio/transcriptions"
_VARIES = {"date", "x-request-id", "content-length"}
"""Headers that differ from answer to answer."""


class _Strict(fake.Engine):
  """Fails where it is asked for whom the client may not ask for."""

  def __init__(self, *allowed):
    super().__init__(("anna", "bert"))
    self.allowed = allowed

  def submit(self, request):
    assert request.task in self.allowed, request.task
    return super().submit(request)

  def load(self, task):
    assert task in self.allowed, task
    return super().load(task)

  def unload(self, task):
    assert task in self.allowed, task
    return super().unload(task)


@pytest.fixture
def tokens(tmp_path):
  """The tokens of three keys, by name; and `keys`, their file."""
  path = tmp_path / "keys.json"
  return {
    "anna": keys.add(path, "anna", speakers=["anna"]),
    "clinic": keys.add(path, "clinic", speakers=None),
    "ops": keys.add(path, "ops", speakers=[], admin=True),
    "path": path,
  }


@contextlib.contextmanager
def _client(engine, tokens, **changes):
  parts = live.service(engine, keys=keys.Keys.open(tokens["path"]), **changes)
  with TestClient(app.build(parts)) as client:
    client.parts = parts
    yield client
  asyncio.run(parts.close())


def _bearer(token):
  return {"Authorization": f"Bearer {token}"}


def _post(client, model, token, **fields):
  return client.post(
    _PATH,
    data={"model": model} | fields,
    files={"file": ("a.wav", WAV)},
    headers=_bearer(token),
  )


def _told(response):
  """All of an answer that could tell anything."""
  headers = {
    name: value
    for name, value in response.headers.items()
    if name not in _VARIES
  }
  return response.status_code, headers, response.content


def test_a_key_cannot_use_another_speaker(tokens):
  with _client(_Strict("anna", None), tokens) as client:
    for fields in ({}, {"fallback": "true"}, {"stream": "true"}):
      answer = _post(client, "tiny:bert", tokens["anna"], **fields)
      assert answer.status_code == 404
    assert _post(client, "tiny:anna", tokens["anna"]).status_code == 200
    assert _post(client, "tiny", tokens["anna"]).status_code == 200


@pytest.mark.parametrize("fields", [{}, {"fallback": "true"}])
def test_who_is_forbidden_is_answered_as_who_is_not_there(tokens, fields):
  """The same bytes, whether there is such a speaker or not."""
  answers = []
  for known in (("anna", "bert"), ("anna",)):
    engine = fake.Engine(known)
    with _client(engine, tokens) as client:
      token = tokens["anna"]
      answers.append(
        [
          _told(_post(client, "tiny:bert", token, **fields)),
          _told(client.get("/v1/models/tiny:bert", headers=_bearer(token))),
          _told(client.get("/v1/models", headers=_bearer(token))),
        ]
      )
    assert not engine.asked
    assert engine.listings == 1  # of the list alone
  assert answers[0] == answers[1]
  assert [status for status, _, _ in answers[0]] == [404, 404, 200]


def test_a_stream_of_another_speaker(tokens):
  heard = []
  for known in (("anna", "bert"), ("anna",)):
    engine = fake.Engine(known)
    with _client(engine, tokens) as client:
      with client.websocket_connect("/v1/audio/stream") as stream:
        start = {"type": "start", "model": "tiny:bert"}
        stream.send_json(start | {"token": tokens["anna"]})
        heard.append(stream.receive_json())
      assert not engine.loaded
      assert not engine.asked
  assert heard[0] == heard[1]
  assert heard[0]["status"] == 404


class _Dawdling(fake.Engine):
  """Takes a while over whom it knows, whatever it is asked of them."""

  DELAY = 0.05

  def submit(self, request):
    self._dawdle(request.task)
    return super().submit(request)

  def load(self, task):
    self._dawdle(task)
    return super().load(task)

  def tasks(self):
    time.sleep(self.DELAY)
    return super().tasks()

  def _dawdle(self, task):
    if task in self.known:
      time.sleep(self.DELAY)


@pytest.mark.parametrize("route", ["recording", "model", "stream"])
def test_forbidden_and_absent_take_as_long(tokens, monkeypatch, route):
  """Whether there is a speaker can't be told by the time: medians of pairs."""
  monkeypatch.setattr("hra.serve.http.listing._TOLD_SECONDS", 0.0)
  limits = {"requests_per_minute": 0.0}
  engine = _Dawdling(("anna", "bert"))
  with _client(engine, tokens, limits=limits) as client:
    ask = {"recording": _post, "model": _model, "stream": _stream}[route]
    took = {"tiny:bert": [], "tiny:nobody": []}
    ask(client, "tiny:nobody", tokens["anna"])
    for _ in range(15):
      for model, times in took.items():
        began = time.perf_counter()
        ask(client, model, tokens["anna"])
        times.append(time.perf_counter() - began)
  there, absent = (np.median(times) for times in took.values())
  assert abs(there - absent) < engine.DELAY / 2
  assert not engine.asked


def _model(client, model, token):
  return client.get(f"/v1/models/{model}", headers=_bearer(token))


def _stream(client, model, token):
  with client.websocket_connect("/v1/audio/stream") as stream:
    stream.send_json({"type": "start", "model": model, "token": token})
    assert stream.receive_json()["status"] == 404


def test_a_list_has_ones_own_alone(tokens):
  with _client(fake.Engine(("anna", "bert")), tokens) as client:
    listed = {
      name: [
        model["id"]
        for model in client.get(
          "/v1/models", headers=_bearer(tokens[name])
        ).json()["data"]
      ]
      for name in ("anna", "clinic", "ops")
    }
  assert listed == {
    "anna": ["tiny", "tiny:anna"],
    "clinic": ["tiny", "tiny:anna", "tiny:bert"],
    "ops": ["tiny"],
  }


_ADMIN = (
  ("POST", "/admin/load", 200),
  ("POST", "/admin/unload", 200),
  ("GET", "/admin/resident", 200),
  ("GET", "/metrics", 200),
)


@pytest.mark.parametrize(("method", "path", "status"), _ADMIN)
def test_administration_takes_an_admins_key(tokens, method, path, status):
  for name, expected in {
    None: 401,
    "anna": 403,
    "clinic": 403,
    "ops": status,
  }.items():
    engine = _Strict("anna") if name == "ops" else _Strict()
    with _client(engine, tokens) as client:
      headers = _bearer(tokens[name]) if name else {}
      body = {"json": {"task": "anna"}} if method == "POST" else {}
      answer = client.request(method, path, headers=headers, **body)
      assert answer.status_code == expected, (name, answer.text)


def test_administration_is_closed_without_keys():
  parts = live.service(_Strict())
  with TestClient(app.build(parts)) as client:
    for method, path, _ in _ADMIN[:3]:
      for headers in ({}, _bearer("x"), _bearer("")):
        body = {"json": {"task": "anna"}} if method == "POST" else {}
        answer = client.request(method, path, headers=headers, **body)
        assert answer.status_code == 403, path
  asyncio.run(parts.close())


def test_a_revoked_key_ends_at_once(tokens):
  with _client(fake.Engine(), tokens) as client:
    assert _post(client, "tiny", tokens["anna"]).status_code == 200
    keys.revoke(tokens["path"], "anna")
    assert _post(client, "tiny", tokens["anna"]).status_code == 401
    assert _post(client, "tiny", tokens["clinic"]).status_code == 200


def test_no_token_is_logged(tokens):
  with _client(fake.Engine(), tokens) as client:
    _post(client, "tiny:anna", tokens["anna"])
    _post(client, "tiny:anna", f"{tokens['anna']}x")
    client.get(f"/v1/models?token={tokens['anna']}")
    with client.websocket_connect("/v1/audio/stream") as stream:
      stream.send_json({"type": "start", "token": tokens["anna"]})
      stream.receive_json()
    logged = client.parts.log._stream.getvalue()
  assert logged.count('"request"') == 4
  assert tokens["anna"].split("_")[2] not in logged


_NAMES = (
  "../anna",
  "../../etc/passwd",
  "/etc/passwd",
  "..",
  ".",
  "",
  "anna\0",
  "anna/../bert",
  "versions/anna/1",
  "anna.safetensors",
  ".index",
  "a" * 5_000,
  "file:///etc/passwd",
  "s3://bucket/x",
  "~root",
  "%2e%2e%2fanna",
  "..\\anna",
)


@pytest.mark.parametrize("name", _NAMES)
def test_names_that_lead_elsewhere(tokens, name):
  """Of a key for one speaker none reaches the engine; of another, as it stands."""
  with _client(_Strict("anna", None), tokens) as client:
    answer = _post(client, f"tiny:{name}", tokens["anna"])
    assert answer.status_code == 404
  engine = fake.Engine()
  with _client(engine, tokens) as client:
    answer = _post(client, f"tiny:{name}", tokens["clinic"])
    assert answer.status_code == 404
    assert {request.task for request in engine.asked} <= {name}
    assert "/secret" not in answer.text
