"""How a server begins and ends, as a process of its own."""

import concurrent.futures
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import fake_engine as fake
import httpx2
import live_server as live
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from hra.config import HttpConfig
from hra.errors import InputError
from hra.serve.http import app, server

SCRIPT = """
import sys
sys.path[:0] = ["tests"]
import fake_engine, live_server
from hra.config import HttpConfig
from hra.serve.http import app, server
from hra.serve.http.logs import Log
engine = fake_engine.Engine()
parts = live_server.service(engine, http={"drain_seconds": 20.0})
parts.log = Log()
http = HttpConfig(port=0)
bound = server.bind(http)
engine.gate.clear()
def ready():
  print(server.address_of(bound), flush=True)
ended = server.run(
  app.build(parts, hosts=server.hosts_of(http)), bound, parts, on_ready=ready
)
print("closed" if engine.closed else "left open", *ended, flush=True)
"""
OPEN_GATE = "threading.Timer(1.5, engine.gate.set).start()\nended = server.run("


@pytest.fixture
def started():
  """Runs the script; the engine answers 1.5 s later, or never."""
  processes = []

  def start(*, answers: bool, drains: float = 20.0):
    script = SCRIPT.replace('": 20.0', f'": {drains}')
    if answers:
      script = script.replace(
        "ended = server.run(", f"import threading\n{OPEN_GATE}"
      )
    process = subprocess.Popen(
      [sys.executable, "-c", script],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    processes.append(process)
    return process, process.stdout.readline().strip()

  yield start
  for process in processes:
    process.kill()
    process.communicate()


def _asked(url, threads):
  """A request that is on its way."""

  def ask():
    return httpx2.post(
      f"{url}/v1/audio/transcriptions",
      data={"model": "tiny:anna"},
      files={"file": ("speech.wav", live.wav(live.wave()))},
      timeout=30,
    )

  future = threads.submit(ask)
  _wait(lambda: "hra_requests_running 2" in httpx2.get(f"{url}/metrics").text)
  return future


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_end(started, number):
  process, url = started(answers=True)
  with concurrent.futures.ThreadPoolExecutor() as threads:
    answer = _asked(url, threads)
    process.send_signal(number)
    assert answer.result().json()["text"].startswith("anna said")
  out, err = process.communicate(timeout=30)
  assert out == "closed 0 False\n"
  assert process.returncode == 0
  lines = [json.loads(line) for line in err.splitlines()]
  assert [line["event"] for line in lines][-2:] == ["stopping", "request"]
  with pytest.raises(httpx2.ConnectError):
    httpx2.get(f"{url}/health/live")


def _stream(url, *messages):
  """A stream that has said so."""
  client = connect(f"{url.replace('http', 'ws')}/v1/audio/stream")
  for message in messages:
    client.send(json.dumps(message) if isinstance(message, dict) else message)
  if messages:
    assert json.loads(client.recv(timeout=20)) == {"type": "ready"}
  return client


def _ends(client):
  """(what it is told at last, the code and the reason of its close)."""
  told = json.loads(client.recv(timeout=20))
  with pytest.raises(ConnectionClosed):
    client.recv(timeout=20)
  return told, client.protocol.close_code, client.protocol.close_reason


START = {"type": "start", "model": "tiny:anna", "partials": False}
SAMPLES = np.rint(live.wave() * 2**15).astype("<i2").tobytes()
LEFT = "The server is shutting down; try again later."


def _is_left(client):
  told, code, reason = _ends(client)
  assert (told["type"], told["status"]) == ("error", 503)
  assert told["error"]["code"] == reason == "shutting_down"
  assert told["error"]["message"] == LEFT
  assert code == 1012


def test_streams_are_told_that_it_ends(started):
  process, url = started(answers=True)
  fresh = _stream(url)
  sending = _stream(url, START, SAMPLES)
  ended = _stream(url, START, SAMPLES, {"type": "end"})
  _wait(lambda: "hra_requests_running 4" in httpx2.get(f"{url}/metrics").text)
  process.send_signal(signal.SIGTERM)
  for client in (fresh, sending):
    _is_left(client)
  told, code, _ = _ends(ended)
  assert told["type"] == "final"
  assert told["text"].startswith("anna said")
  assert code == 1000
  out, err = process.communicate(timeout=30)
  assert (process.returncode, out) == (0, "closed 0 False\n")
  assert "Traceback" not in err
  lines = [json.loads(line) for line in err.splitlines()]
  statuses = [
    each["status"] for each in lines if "stream" in each.get("route", "")
  ]
  assert sorted(statuses) == [101, 503, 503]


@pytest.mark.parametrize("twice", [False, True])
def test_streams_whose_text_comes_too_late(started, twice):
  """The time to drain is over, or a second signal comes."""
  process, url = started(answers=False, drains=20.0 if twice else 1.0)
  ended = _stream(url, START, SAMPLES, {"type": "end"})
  process.send_signal(signal.SIGTERM)
  if twice:
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
  _is_left(ended)
  out, err = process.communicate(timeout=30)
  assert (process.returncode, out) == (0, f"closed 1 {twice}\n")
  assert "Traceback" not in err


def test_a_second_signal_does_not(started):
  process, url = started(answers=False)
  with concurrent.futures.ThreadPoolExecutor() as threads:
    answer = _asked(url, threads)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    with pytest.raises(httpx2.HTTPError):
      answer.result().raise_for_status()
  assert out == "closed 1 True\n"
  assert process.returncode == 0
  assert "Traceback" not in err


def test_what_takes_too_long_is_given_up(started):
  process, url = started(answers=False, drains=1.0)
  with concurrent.futures.ThreadPoolExecutor() as threads:
    answer = _asked(url, threads)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    with pytest.raises(httpx2.HTTPError):
      answer.result().raise_for_status()
  assert out == "closed 1 False\n"


@pytest.mark.parametrize(
  ("ended", "told"),
  [
    ((0, False), "all that had begun is answered"),
    ((0, True), "all that had begun is answered"),
    ((3, True), "3 that had begun given up by a second signal"),
    (
      (1_000, False),
      "1,000 that had begun given up as http.drain_seconds ended",
    ),
  ],
)
def test_it_says_how_it_ended(ended, told):
  assert server.Ended(*ended).told() == told


def test_requests_wait_for_an_engine_that_compiles():
  engine = fake.Engine()
  engine.compiled.clear()
  engine.gate.clear()
  with (
    live.serving(live.service(engine)) as running,
    concurrent.futures.ThreadPoolExecutor() as threads,
  ):
    assert httpx2.get(f"{running.url}/health/live").status_code == 200
    assert httpx2.get(f"{running.url}/health/ready").status_code == 503
    answer = _asked(running.url, threads)
    engine.compiled.set()
    engine.gate.set()
    assert httpx2.get(f"{running.url}/health/ready").status_code == 200
    assert answer.result().status_code == 200


def test_an_engine_that_never_gets_ready(capfd):
  engine = fake.Engine()
  engine.broken = True
  parts = live.service(engine)
  bound = server.bind(HttpConfig(port=0))
  told = []
  with pytest.raises(InputError, match="got a broken one"):
    server.run(app.build(parts), bound, parts, on_ready=lambda: told.append(1))
  assert engine.closed
  assert not told


def test_an_address_that_is_taken():
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(InputError, match=f"--port={port}: expected an address"):
      server.bind(HttpConfig(port=port))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a b"])
def test_addresses_that_there_are_not(host):
  with pytest.raises(InputError, match="expected an address to listen at"):
    server.bind(HttpConfig(host=host, port=0))


def test_a_port_is_had_once():
  """Also by who doesn't serve yet."""
  with server.bind(HttpConfig(port=0)) as bound:
    port = bound.getsockname()[1]
    with pytest.raises(InputError, match=f"--port={port}: expected an address"):
      server.bind(HttpConfig(port=port))


def test_who_connects_before_it_serves_waits():
  with (
    server.bind(HttpConfig(port=0)) as bound,
    socket.create_connection(bound.getsockname()) as client,
  ):
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
      client.recv(1)


@pytest.mark.parametrize(
  ("host", "local"),
  [
    ("localhost", True),
    ("127.0.0.1", True),
    ("127.9.9.9", True),
    ("::1", True),
    ("0.0.0.0", False),
    ("::", False),
    ("10.0.0.1", False),
    ("example.org", False),
    ("", False),
  ],
)
def test_which_hosts_are_this_machine_alone(host, local):
  assert server.is_local(host) == local
  assert (server.hosts_of(HttpConfig(host=host)) is not None) == local
  named = HttpConfig(host=host, hosts=("Asr.example.org",))
  assert server.hosts_of(named) >= {"asr.example.org", "localhost"}
  assert "evil.example" not in server.hosts_of(named)


def test_a_server_in_a_thread_ends_with_its_test():
  before = threading.active_count()
  engine = fake.Engine()
  with live.serving(live.service(engine)) as running:
    assert httpx2.get(f"{running.url}/health/ready").status_code == 200
  assert engine.closed
  assert threading.active_count() <= before


def _wait(holds):
  deadline = time.monotonic() + 10
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.02)
