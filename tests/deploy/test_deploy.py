"""The image and the unit: what they start, as whom, and from which packages."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hra.config import HttpConfig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNIT = (DEPLOY / "hra.service").read_text()


def _pins(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
  """By name: the version and the hashes of a list of constraints."""
  found = {}
  for entry in re.split(r"\n(?=\S)", path.read_text()):
    name, version = re.match(r"([\w.-]+)==([\w.+!-]+)", entry).groups()
    found[name] = version, frozenset(re.findall(r"sha256:\w{64}", entry))
  return found


def _entrypoint() -> list[str]:
  line = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.M)[1]
  return json.loads(line)


def _started() -> list[str]:
  return re.search(r"^ExecStart=(.*)$", UNIT, re.M)[1].split()


def test_an_image_has_the_versions_that_tests_have():
  all_pins = _pins(ROOT / "constraints.txt")
  pins = _pins(DEPLOY / "constraints.txt")
  assert {name: all_pins.get(name) for name in pins} == pins
  assert all(hashes for _, hashes in pins.values())
  assert {"starlette", "uvicorn", "websockets", "jax", "soundfile"} <= set(pins)
  assert not {"pytest", "playwright", "moto", "transformers"} & set(pins)


def test_both_start_the_same_command():
  image, unit = _entrypoint(), _started()
  assert image[:2] == unit[:2] == ["/opt/hra/bin/hra", "serve"]
  ours = [
    [re.sub(r"(--keys=).*/", r"\1", flag) for flag in flags]
    for flags in (image[2:], unit[2:])
  ]
  common = ["--workdir=/srv/hra/run", "--keys=keys.json"]
  # Ports of a container are published from outside of its own loopback.
  assert ours == [[*common, "--host=0.0.0.0"], [*common, "$HRA_FLAGS"]]


@pytest.mark.parametrize("name", ["deploy/Dockerfile", "docs/serving.md"])
def test_a_container_sees_keys_change_and_lets_requests_end(name):
  """A file that is mounted alone is the old one after its name was given away."""
  text = (ROOT / name).read_text()
  volumes = dict(re.findall(r'--volume "\$PWD/([^:"]+):([^:"]+):ro"', text))
  (flag,) = (each for each in _entrypoint() if each.startswith("--keys="))
  folder, _, file = flag.removeprefix("--keys=").rpartition("/")
  assert volumes == {"runs/mine": "/srv/hra/run", "keys": folder}
  assert file == "keys.json"
  timeout = re.search(r"--stop-timeout (\d+)", text)
  assert int(timeout[1]) > HttpConfig().drain_seconds


def test_an_image_has_no_rights():
  last = DOCKERFILE.split("\nFROM ")[-1]
  assert re.search(r"^USER hra$", last, re.M)
  assert last.index("\nUSER hra") < last.index("\nENTRYPOINT")
  assert "--require-hashes" in DOCKERFILE
  command = re.search(r"HEALTHCHECK[^\[]*(\[.*\])", last)[1]
  assert "/health/ready" in json.loads(command)[-1]


def test_an_image_copies_what_is_let_through():
  ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
  assert ignored[0] == "*"
  let = {line[1:] for line in ignored if line.startswith("!")}
  copied = set()
  for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M):
    copied |= set(line.split())
  assert copied == let
  assert all((ROOT / path).exists() for path in copied)


@pytest.mark.skipif(
  shutil.which("systemd-analyze") is None, reason="no systemd here"
)
def test_the_unit_is_sound(tmp_path):
  unit = tmp_path / "hra.service"
  unit.write_text(UNIT.replace("/opt/hra/bin/hra", "/bin/true"))
  told = subprocess.run(
    ["systemd-analyze", "verify", unit], capture_output=True, text=True
  )
  assert (told.returncode, told.stderr) == (0, "")


def test_the_unit_has_no_rights():
  for line in (
    "DynamicUser=yes",
    "ProtectSystem=strict",
    "CapabilityBoundingSet=",
    "LoadCredential=keys.json:/etc/hra/keys.json",
    "SystemCallFilter=@system-service",
    "IPAddressDeny=any",
  ):
    assert f"\n{line}\n" in UNIT
