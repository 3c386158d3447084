"""Everything of the server but formats and streams, over real connections."""

import concurrent.futures
import contextlib
import json
import socket
import time

import fake_engine as fake
import httpx2
import live_server as live
import pytest
from prometheus_client import parser

from hra.keys import stable_hash
from hra.serve import interface

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
def proxied():
  parts = live.service(fake.Engine(), http={"hosts": ("Asr.example.org",)})
  with (
    live.serving(parts) as server,
    httpx2.Client(base_url=server.url, timeout=30) as made,
  ):
    yield made


def _post(client, **fields):
  return client.post(POST, data={"model": "tiny:anna"} | fields, files=FILE)


def _error(response, status, code):
  assert response.status_code == status, response.text
  error = response.json()["error"]
  assert set(error) == {"message", "type", "param", "code"}
  assert error["code"] == code, error
  return error


@pytest.fixture
def failing(engine):
  """Has the engine refuse whatever it is asked."""

  def fail(kind):
    engine.failure = kind("/secret/place", expected="this", got="that")

  yield fail
  engine.failure = None


@pytest.mark.parametrize(
  ("kind", "status", "code"),
  [
    (interface.TooLong, 413, "audio_too_long"),
    (interface.Overloaded, 503, "overloaded"),
    (interface.StoreGone, 503, "store_unreachable"),
    (interface.Closed, 503, "shutting_down"),
    (interface.UnknownSpeaker, 404, "model_not_found"),
    (interface.BadSubmodel, 409, "bad_submodel"),
    (interface.Failed, 503, "server_error"),
  ],
)
def test_what_the_engine_refuses(client, running, failing, kind, status, code):
  failing(kind)
  response = _post(client)
  error = _error(response, status, code)
  assert "secret" not in response.text
  assert ("retry-after" in response.headers) == (status == 503)
  assert (
    error["type"]
    == {
      404: "not_found_error",
      409: "invalid_request_error",
      413: "invalid_request_error",
      503: "server_error",
    }[status]
  )
  _wait(lambda: running.last().get("code") == code)


def test_a_submodel_that_fails_later(client, running):
  response = _post(client, model="tiny:broken")
  _error(response, 409, "bad_submodel")
  assert response.headers["x-should-retry"] == "false"
  _wait(lambda: "detail" in running.last())
  assert running.last()["detail"] == "expected a whole file, got half"


def test_an_answer_that_takes_too_long(client, engine):
  engine.gate.clear()
  try:
    _error(_post(client), 504, "answer_timeout")
    assert engine.futures[-1].cancelled()
  finally:
    engine.gate.set()


def test_what_nobody_foresaw_is_told_to_the_log_alone(client, running, engine):
  engine.failure = ZeroDivisionError("at /secret/place")
  try:
    response = _post(client)
  finally:
    engine.failure = None
  _error(response, 500, "server_error")
  assert "secret" not in response.text
  _wait(lambda: "ZeroDivisionError" in running.logged.getvalue())
  assert _post(client).status_code == 200


def test_who_hangs_up_takes_the_request_back(running, engine, monkeypatch):
  monkeypatch.setattr(running.service.config.limits, "answer_seconds", 30.0)
  engine.gate.clear()
  before = len(engine.futures)
  try:
    with httpx2.Client(base_url=running.url, timeout=2.0) as client:
      with pytest.raises(httpx2.TimeoutException):
        _post(client)
      assert len(engine.futures) == before + 1
    _wait(lambda: engine.futures[-1].cancelled())
    _wait(lambda: running.last().get("status") == 499)
    _wait(lambda: running.service.samples.held == 0)
  finally:
    engine.gate.set()


@pytest.mark.parametrize("head_seconds", [0.05, 5.0])
def test_who_hangs_up_on_events_takes_the_request_back(
  running, engine, monkeypatch, head_seconds
):
  monkeypatch.setattr("hra.serve.http.events.HEAD_SECONDS", head_seconds)
  monkeypatch.setattr("hra.serve.http.events._ALIVE_SECONDS", 0.05)
  monkeypatch.setattr(running.service.config.limits, "answer_seconds", 30.0)
  engine.gate.clear()
  before = len(engine.futures)
  form = {"model": "tiny:anna", "stream": "true"}
  try:
    with (
      httpx2.Client(base_url=running.url, timeout=2.0) as client,
      contextlib.suppress(httpx2.TimeoutException),
      client.stream("POST", POST, data=form, files=FILE) as response,
    ):
      assert head_seconds < 1
      assert next(response.iter_raw()).startswith(b": ")
      _wait(lambda: len(engine.futures) > before)
    assert len(engine.futures) > before
    _wait(lambda: engine.futures[-1].cancelled())
    _wait(lambda: running.service.samples.held == 0)
  finally:
    engine.gate.set()


def test_events_that_take_too_long_end_with_an_error(
  client, running, engine, monkeypatch
):
  monkeypatch.setattr(running.service.config.limits, "answer_seconds", 3.0)
  monkeypatch.setattr("hra.serve.http.events.HEAD_SECONDS", 0.05)
  engine.gate.clear()
  try:
    text = _post(client, stream="true").text
    # While nothing is answered: what is done can't be cancelled any more.
    _wait(lambda: engine.futures[-1].cancelled())
  finally:
    engine.gate.set()
  assert text.startswith(": ")
  error = json.loads(text.rpartition("data: ")[2])["error"]
  assert error["code"] == "answer_timeout"


def test_an_engine_that_gives_up_is_shutting_down(client, engine):
  engine.gate.clear()
  before = len(engine.futures)
  try:
    with concurrent.futures.ThreadPoolExecutor() as threads:
      asked = threads.submit(_post, client)
      _wait(lambda: len(engine.futures) > before)
      assert engine.futures[-1].cancel()
      _error(asked.result(), 503, "shutting_down")
  finally:
    engine.gate.set()


def test_who_hangs_up_within_the_form(running):
  head = (
    f"POST {POST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
    "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
  )
  with socket.create_connection(("127.0.0.1", running.port)) as connection:
    connection.sendall(head.encode())
    time.sleep(0.1)
  _wait(lambda: running.last().get("status") == 499)
  assert "Traceback" not in running.logged.getvalue().rpartition("499")[2]


def test_samples_of_all_requests_are_bounded(client, running, monkeypatch):
  monkeypatch.setattr(running.service.samples, "limit", WAVE.nbytes)
  assert _post(client).status_code == 200
  monkeypatch.setattr(running.service.samples, "limit", WAVE.nbytes - 1)
  _error(_post(client), 503, "overloaded")
  _wait(lambda: running.service.samples.held == 0)


def test_recordings_that_are_too_long(client):
  files = {"file": ("long.wav", live.wav(live.wave(6.0)))}
  response = client.post(POST, data={"model": "tiny"}, files=files)
  error = _error(response, 413, "audio_too_long")
  assert "at most 5 s" in error["message"]


def test_bodies_that_are_too_large(client):
  response = client.post(
    POST, data={"model": "tiny"}, files={"file": b"0" * (2**20 + 1)}
  )
  _error(response, 413, "request_too_large")


@pytest.mark.parametrize(
  ("content", "kind", "status", "code"),
  [
    (b"", None, 415, "unsupported_media_type"),
    (b"{}", "application/json", 415, "unsupported_media_type"),
    (b"", "multipart/form-data", 400, "bad_form"),
    (b"nonsense", "multipart/form-data; boundary=b", 400, "bad_form"),
    (b"--b--\r\n", "multipart/form-data; boundary=b", 400, "missing_field"),
  ],
)
def test_bodies_that_are_no_form(client, content, kind, status, code):
  headers = {"Content-Type": kind} if kind else {}
  response = client.post(POST, content=content, headers=headers)
  _error(response, status, code)


@pytest.mark.parametrize(
  ("fields", "files", "param"),
  [
    ({}, FILE, "model"),
    ({"model": ""}, FILE, "model"),
    ({"model": ["tiny", "tiny:anna"]}, FILE, "model"),
    ({"model": "tiny"}, {"other": FILE["file"]}, "other"),
    ({"model": "tiny"}, {"file": (None, b"text")}, "file"),
    ({"model": "tiny", "stream": "yes"}, FILE, "stream"),
    ({"model": "tiny", "temperature": "nan"}, FILE, "temperature"),
  ],
)
def test_forms_without_sense(client, fields, files, param):
  response = client.post(POST, data=fields, files=files)
  assert response.status_code == 400, response.text
  assert response.json()["error"]["param"] == param


def test_times_of_words_that_the_decoder_does_not_know(client, engine):
  """Known before anything is heard."""
  before = len(engine.asked)
  engine.words = False
  try:
    response = _post(
      client,
      response_format="verbose_json",
      **{"timestamp_granularities[]": "word"},
    )
  finally:
    engine.words = True
  error = _error(response, 400, "unsupported_field")
  assert error["param"] == "timestamp_granularities"
  assert len(engine.asked) == before


def test_routes_and_methods_that_there_are_not(client):
  _error(client.get("/v2"), 404, "no_such_route")
  _error(client.get("/v1/models/"), 404, "model_not_found")
  _error(client.get("/../../etc/passwd"), 404, "no_such_route")
  response = client.get(POST)
  _error(response, 405, "no_such_method")
  assert response.headers["allow"] == "POST"


def test_the_page_loads_nothing_from_elsewhere(client):
  page = client.get("/")
  assert page.headers["content-type"] == "text/html; charset=utf-8"
  policy = page.headers["content-security-policy"].split("; ")
  assert {"default-src 'none'", "script-src 'self'"} <= set(policy)
  assert "unsafe" not in page.headers["content-security-policy"]
  script = client.get("/app.js")
  assert script.headers["content-type"].startswith("text/javascript")
  assert script.headers["x-content-type-options"] == "nosniff"


def test_health(client, engine, running):
  assert client.get("/health/live").json() == {"status": "live"}
  assert client.get("/health/ready").status_code == 200
  engine.compiled.clear()
  try:
    assert client.get("/health/ready").status_code == 503
  finally:
    engine.compiled.set()
  assert client.get("/health/live").status_code == 200


def test_metrics(client, running):
  def figures():
    text = client.get("/metrics").text
    families = parser.text_string_to_metric_families(text)
    return {
      (sample.name, tuple(sorted(sample.labels.items()))): sample.value
      for family in families
      for sample in family.samples
    }

  labels = {"route": POST, "method": "POST", "status": "200"}
  name = ("hra_requests_total", tuple(sorted(labels.items())))
  before = figures().get(name, 0)
  assert _post(client).status_code == 200
  client.request("ODD", "/v1/models/tiny:anna")
  found = figures()
  assert found[name] == before + 1
  seconds = ("hra_request_seconds_count", (("route", POST),))
  assert found[seconds] >= 1
  assert found["hra_requests_running", ()] == 1  # the one for figures
  assert found["hra_engine_requests_waiting", ()] == 2
  assert found["hra_engine_loads_total", ()] == 5
  assert found["hra_engine_ready", ()] == 1
  assert not [labels for _, labels in found if "anna" in str(labels)]
  assert [labels for _, labels in found if ("method", "other") in labels]


def test_a_line_for_each_request(client, running):
  _post(client)
  text = fake.text_of("anna", WAVE)
  _wait(lambda: running.last().get("applied"))
  line = running.last()
  del line["id"], line["time"], line["seconds"]
  assert line == {
    "event": "request",
    "method": "POST",
    "route": POST,
    "status": 200,
    "key": "open",
    "speaker": f"{stable_hash('anna'):016x}",
    "applied": "submodel",
    "version": 3,
    "audio_seconds": 0.5,
    "queued_seconds": 0.001,
    "loading_seconds": 0.002,
    "computing_seconds": 0.003,
  }
  before = len(running.requests())
  _post(client, stream="true")
  _wait(lambda: len(running.requests()) > before)
  assert running.last()["applied"] == "submodel"
  client.get("/v1/models/tiny:anna?secret=1")
  _wait(lambda: "models" in running.last().get("route", ""))
  told = running.logged.getvalue()
  for secret in ("anna", "secret=1", text, "speech.wav"):
    assert secret not in told


def test_speakers_can_be_named_in_the_log(engine):
  parts = live.service(fake.Engine(), named=True)
  with (
    live.serving(parts) as server,
    httpx2.Client(base_url=server.url) as client,
  ):
    _post(client)
    _wait(server.requests)
    assert server.requests()[-1]["speaker"] == "anna"


@pytest.mark.parametrize(
  ("headers", "status"),
  [
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://[bad"}, 403),
    ({"Host": "evil.example"}, 403),
    ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 403),
    ({"Host": "localhost"}, 200),
    ({"Host": "LOCALHOST:99", "Origin": "http://localhost:99"}, 200),
  ],
)
def test_pages_of_other_sites_are_refused(client, headers, status):
  response = client.get("/v1/models", headers=headers)
  assert response.status_code == status


@pytest.mark.parametrize(
  ("headers", "status"),
  [
    ({"Host": "asr.example.org"}, 200),
    ({"Host": "ASR.example.org:8443"}, 200),
    ({"Host": "asr.example.org", "Origin": "https://asr.example.org"}, 200),
    (
      {"Origin": "https://ASR.example.org"},
      200,
    ),  # a proxy that is the one asked
    ({"Host": "127.0.0.1:8000", "Origin": "https://asr.example.org"}, 200),
    ({"Host": "localhost"}, 200),
    ({"Host": "example.org"}, 403),
    ({"Host": "x.asr.example.org"}, 403),
    ({"Host": "asr.example.org", "Origin": "https://evil.example"}, 403),
    ({"Host": "asr.example.org", "Origin": "http://localhost"}, 403),
    ({"Origin": "https://asr.example.org:8443"}, 403),
    ({"Origin": "https://asr.example.org.evil.example"}, 403),
    ({"Origin": "http://localhost"}, 403),
  ],
)
def test_a_proxy_is_asked_by_its_name(proxied, headers, status):
  response = proxied.get("/v1/models", headers=headers)
  assert response.status_code == status


def _wait(holds):
  deadline = time.monotonic() + 10
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_every_line_of_the_log_is_json(running):
  assert all(map(json.loads, running.logged.getvalue().splitlines()))
