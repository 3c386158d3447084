"""What docs/serving.md says: its Python runs, and its flags are there."""

import io
import re
import subprocess
import sys
from pathlib import Path

import fake_engine
import live_server as live
import pytest

from hra.serve import keys

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
MAIN = "from hra.commands.main import run; run()"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
  """A server with a key, whose engine computes nothing."""
  path = tmp_path_factory.mktemp("keys") / "keys.json"
  token = keys.add(path, "docs", speakers=["speaker-03"])
  engine = fake_engine.Engine(("speaker-03",))
  parts = live.service(engine, keys=keys.Keys.open(path))
  with live.serving(parts) as server:
    yield server, token


@pytest.mark.parametrize("example", EXAMPLES, ids=("openai", "websocket"))
def test_examples_run(running, monkeypatch, tmp_path, capsys, example):
  server, token = running
  monkeypatch.chdir(tmp_path)
  wave = live.wav(live.wave())
  Path("recording.wav").write_bytes(wave)
  here = example.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
  file = io.BytesIO(wave[44:])
  blocks = iter(lambda: file.read(3000), b"")
  exec(here.replace("hra_...", token), {"blocks": blocks})
  assert "speaker-03 said" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["serve", "key"])
def test_flags_are_there(verb):
  told = subprocess.run(
    [sys.executable, "-c", MAIN, verb, "--help"], capture_output=True, text=True
  ).stdout
  known = set(re.findall(r"^\s+--(?:\[no\])?(\w+)", told, re.M))
  asked = set()
  for path in ("docs/serving.md", "deploy/Dockerfile", "deploy/hra.service"):
    text = (ROOT / path).read_text().replace('", "', " ").replace("\\\n", " ")
    for line in re.findall(rf"hra(?:\", \"| ){verb}\b(.*)", text):
      asked |= set(re.findall(r"--(\w+)", line)) - {"config"}
  assert asked
  assert asked <= known


def test_statuses_and_codes_are_told():
  said = set(re.findall(r"^\| (\d+) \| ", PAGE, re.M))
  statuses, codes = set(), {"1000", "1012"}
  for path in (ROOT / "hra/serve/http").glob("*.py"):
    text = path.read_text()
    found = re.findall(r"(?:Refusal|HTTPException)\(\s*(\d{3})", text)
    statuses |= {*found, *re.findall(r"^  (\d{3}): \"", text, re.M)}
    codes |= set(re.findall(r"\b10\d\d\b", text)) - {"1024"}
  assert {"404", "405", "413", "415", "500", "503", "504"} <= statuses
  assert statuses | codes == said


def test_fields_are_there():
  from hra.config import ServeConfig

  fields = re.findall(r"`(?:--config\.)?((?:limits|engine|http)\.\w+)", PAGE)
  for row in re.findall(
    r"^\| (`\w+`(?:, `\w+`)*) \|.*\| ([\d, ]+) \|$", PAGE, re.M
  ):
    names, values = re.findall(r"\w+", row[0]), row[1].split(", ")
    for name, value in zip(names, values, strict=True):
      assert getattr(ServeConfig().limits, name) == float(value)
      fields.append(f"limits.{name}")
  assert len(fields) > 10
  for field in fields:
    group, name = field.split(".")
    assert hasattr(getattr(ServeConfig(), group), name), field
