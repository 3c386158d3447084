"""`hra serve` as a process: what it refuses, and from its first line to its last."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import live_server as live
import openai
import pytest
import serve_stores as stores

from hra import submodels
from hra.config import AdapterConfig
from hra.data import audio
from hra.evaluate.recognizer import Recognizer

SCRIPT = "from hra.commands.main import run_verb; run_verb('serve')"
FEW = (
  "--config.engine.bucket_seconds=2",
  "--config.engine.batch_sizes=1",
  "--config.limits.decoders=1",
)


def _started(*flags, **streams):
  return subprocess.Popen(
    [sys.executable, "-c", SCRIPT, *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "COLUMNS": "80"},
    **streams,
  )


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ([], "hra serve: hra serve: expected --workdir of a run, or --store"),
    (["--host=0.0.0.0"], "--host=0.0.0.0: expected --keys, as other machines"),
    (
      ["--hosts=a.org,b"],
      "--hosts=a.org,b: expected --keys, as other machines",
    ),
    (["--hosts=https://a.org"], "config.http.hosts: expected names alone"),
    (["--hosts=a.org,"], "config.http.hosts: expected names alone"),
    (["--port=65536"], "config.http.port: expected below 65,536, got 65536"),
    (["--config.engine.slot=3"], "did you mean 'slots'?"),
    (["--config.engine.batch_sizes=4,1"], "expected one or more, ascending"),
    (["--config.limits.burst=0"], "config.limits.burst: expected at least 1"),
    (["--store=s", "--backbone=tiny", "--name=a:b"], "without a colon"),
    (["--store=no/such", "--backbone=tiny"], "no/such"),
    (["--store=.", "--backbone=tiny", "--keys=no/such"], "no/such"),
    (["--log_speakers=nobody"], "--log_speakers"),
  ],
)
def test_what_it_refuses_is_one_line(flags, message):
  process = _started("--port=0", *flags)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 2, err
  assert err.startswith("hra serve: ")
  assert err.count("\n") == 1
  assert message in err
  assert out == ""


def test_its_help_names_every_flag():
  process = _started("--help")
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 0
  for told in (
    "hra serve --workdir=runs/quickstart",
    "--config.engine.slots",
    "--keys",
    "--open",
    "--log_speakers",
    "--language",
  ):
    assert told in out


def _transcribed(*flags):
  """What `hra transcribe` prints, by file: the fields of its lines."""
  script = SCRIPT.replace("serve", "transcribe")
  process = subprocess.run(
    [sys.executable, "-c", script, *map(str, flags)],
    capture_output=True,
    text=True,
    check=True,
  )
  found = {}
  for line in process.stdout.splitlines():
    path, *fields = line.split("\t")
    found.setdefault(path, []).append(fields)
  return found


@contextlib.contextmanager
def _serving(*flags):
  """The client of one that is ready."""
  process = _started("--port=0", "--config.limits.decoders=1", *flags)
  try:
    url = process.stdout.readline().split()[2].rstrip(";")
    assert process.stdout.readline().startswith("hra serve: ready after ")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
      yield client
  finally:
    process.kill()
    process.communicate()


def _files(folder, waves):
  """Their paths."""
  paths = [folder / f"{place}.wav" for place in range(len(waves))]
  for path, wave in zip(paths, waves, strict=True):
    path.write_bytes(live.wav(wave))
  return paths


def _heard(client, model, path, **asked):
  file = (path.name, path.read_bytes())
  return client.audio.transcriptions.create(model=model, file=file, **asked)


def _published(folder, *people):
  store = submodels.create(folder)
  for each in people:
    fingerprint = submodels.shared_fingerprint(each.shared)
    store.publish(dataclasses.replace(each, shared_fingerprint=fingerprint))
  return folder


@pytest.mark.slow  # its twin: test_engine_decoders.py::test_whisper
def test_whispers_language_and_times_are_those_of_transcribe(tmp_path):
  whispers = pytest.importorskip("whispers")
  *_, stored = whispers.pair(tmp_path, "small")
  adapter = AdapterConfig(family="residual", width=2, stacks="both")
  anna = stores.submodel(
    Recognizer(stored), "anna", 1, adapter=adapter, scale=2.0
  )
  of_store = _published(tmp_path / "store", anna)
  paths = _files(tmp_path, whispers.waves((44_000, 16_000, 9_000)))
  backbone = f"--backbone={tmp_path / 'small' / 'ours'}"
  asked = ("--language=de", "--timestamps")
  told = {
    model: _transcribed(backbone, *asked, *flags, *paths)
    for model, flags in (
      ("w", ()),
      ("w:anna", (f"--submodel={of_store / 'anna.safetensors'}",)),
    )
  }
  english = _transcribed(backbone, "--language=en", "--timestamps", *paths)
  assert len({str(each) for each in (*told.values(), english)}) == 3
  with _serving(
    backbone, f"--store={of_store}", "--name=w", *asked, *FEW[1:]
  ) as client:
    for model, files in told.items():
      for path in paths:
        found = _heard(client, model, path, response_format="verbose_json")
        assert found.language == "de"
        assert [
          [f"{each.start:.2f}", f"{each.end:.2f}", each.text]
          for each in found.segments
        ] == files.get(str(path), [])
    assert _heard(client, "w", paths[0], language="de").text
    with pytest.raises(openai.BadRequestError, match="language"):
      _heard(client, "w", paths[0], language="en")


@pytest.mark.slow  # its twin: test_engine_decoders.py::test_beams_hear_as_offline
def test_a_beam_is_that_of_transcribe(tmp_path):
  recognizer = stores.recognizer(tmp_path / "small")
  anna = stores.submodel(recognizer, "anna", 1)
  of_store = _published(tmp_path / "store", anna)
  paths = _files(tmp_path, [stores.wave(1.5), stores.wave(2.0, 1)])
  backbone = f"--backbone={tmp_path / 'small'}"
  beam = ("--beam=4", "--length_bonus=0.5")
  told = {
    model: _transcribed(backbone, *beam, *flags, *paths)
    for model, flags in (
      ("small", ()),
      ("small:anna", (f"--submodel={of_store / 'anna.safetensors'}",)),
    )
  }
  greedy = _transcribed(backbone, *paths)
  assert len({str(each) for each in (*told.values(), greedy)}) == 3
  with _serving(backbone, f"--store={of_store}", *beam, *FEW) as client:
    for model, files in told.items():
      for path in paths:
        assert [[_heard(client, model, path).text]] == files[str(path)]


def test_from_its_first_line_to_its_last(tmp_path):
  recognizer = stores.recognizer(tmp_path / "small")
  anna = stores.submodel(recognizer, "anna & co", 1)
  fingerprint = submodels.shared_fingerprint(anna.shared)
  store = submodels.create(tmp_path / "store")
  store.publish(dataclasses.replace(anna, shared_fingerprint=fingerprint))
  (tmp_path / "store" / "bert.safetensors").write_bytes(b"cut short")
  wave = live.wav(stores.wave(1.5))
  (tmp_path / "speech.wav").write_bytes(wave)
  heard = audio.decode(tmp_path / "speech.wav")
  backbone, own = recognizer.transcribe(
    [heard, heard], [None, store["anna & co"]]
  )
  assert backbone != own
  process = _started(
    f"--backbone={tmp_path / 'small'}",
    f"--store={tmp_path / 'store'}",
    "--port=0",
    *FEW,
  )
  try:
    url = process.stdout.readline().split()[2].rstrip(";")
    told = [process.stdout.readline() for _ in range(9)]
    assert told[0].startswith("hra serve: ready after ")
    assert "-F model='small:anna & co'" in "".join(told)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
      names = [model.id for model in client.models.list()]
      assert names == ["small", "small:anna & co"]
      for name, text in zip(names, (backbone, own), strict=True):
        found = client.audio.transcriptions.create(
          model=name, file=("speech.wav", wave)
        )
        assert found.text == text
    assert httpx2.get(f"{url}/health/ready").status_code == 200
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
  finally:
    process.kill()
    process.communicate()
  assert process.returncode == 0
  assert err.endswith("hra serve: stopped, all that had begun is answered\n")
  assert "/store: 1 are no whole Submodels; hra store names them\n" in err
  assert "bert" not in err
  lines = [line for line in err.splitlines() if line.startswith("{")]
  assert "stopping" in [json.loads(line)["event"] for line in lines]
  assert "anna" not in err
  assert Path(tmp_path / "store").is_dir()
