"""`hra serve` as a process: what it refuses, and from its first line to its last."""

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
from hra.data import audio

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
