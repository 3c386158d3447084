"""`hra store`, and the stores of `hra export` and `hra transcribe`."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import soundfile
import stores

from hra import submodels
from hra.adapters import families
from hra.backbone import store as backbones
from hra.config import AdapterConfig
from hra.submodels import Store

SCRIPT = "from hra.commands.main import run_verb; run_verb({verb!r})"


def _run(verb, *arguments):
  return subprocess.run(
    [sys.executable, "-c", SCRIPT.format(verb=verb), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def _ran(verb, *arguments):
  done = _run(verb, *arguments)
  assert done.returncode == 0, done.stderr
  return [line.split("\t") for line in done.stdout.splitlines()]


def _refused(verb, *arguments):
  done = _run(verb, *arguments)
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  return line


@pytest.fixture
def folder(tmp_path):
  store = submodels.create(tmp_path / "store")
  for seed in range(2):
    store.publish(stores.made("anna", seed))
  store.publish(stores.made("bert"))
  return tmp_path / "store"


def test_what_a_store_holds_is_listed(folder, tmp_path):
  told = tmp_path / "told.json"
  lines = _ran("store", f"--store={folder}", f"--json={told}")
  entries = Store(folder).entries()
  assert [line[:4] for line in lines] == [
    ["anna", "2", "hra", "better"],
    ["bert", "1", "hra", "better"],
  ]
  assert [line[5] for line in lines] == [each.fingerprint for each in entries]
  assert [each["task"] for each in json.loads(told.read_text())] == [
    "anna",
    "bert",
  ]
  lines = _ran("store", f"--store={folder}", "--action=versions", "--task=anna")
  assert [line[1] for line in lines] == ["1", "2"]


def test_versions_come_and_go(folder, tmp_path):
  rollback = ("store", f"--store={folder}", "--action=rollback", "--task=anna")
  assert _ran(*rollback, "--version=1")[0][1] == "1"
  assert Store(folder).find("anna").version == 1
  line = _refused(*rollback, "--version=3")
  assert "expected one of 1, 2, got none that is kept" in line
  other = tmp_path / "other"
  publish = ("store", f"--store={other}", "--action=publish")
  lines = _ran(*publish, f"--submodel={folder}")
  assert [line[0] for line in lines] == ["anna", "bert"]
  one = folder / "versions" / "anna" / "2.safetensors"
  assert _ran(*publish, f"--submodel={one}")[0][1] == "2"
  stores.assert_is(Store(other)["anna"], stores.made("anna", 1))
  assert (
    "packed 2 Submodels"
    in _ran("store", f"--store={other}", "--action=pack")[0][0]
  )
  assert len(_ran("store", f"--store={other}")) == 2
  delete = ("store", f"--store={other}", "--action=delete")
  assert "deleted 'anna'" in _ran(*delete, "--task=anna")[0][0]
  assert "did you mean 'bert'?" in _refused(*delete, "--task=bort")
  assert [line[0] for line in _ran("store", f"--store={other}")] == ["bert"]


def test_what_is_damaged_is_named_after_all_others_are_listed(folder):
  path = folder / "anna.safetensors"
  path.write_bytes(path.read_bytes()[:-1])
  done = _run("store", f"--store={folder}")
  assert done.returncode == 2
  assert done.stdout.startswith("bert\t1\t")
  assert str(path) in done.stderr
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
  ("arguments", "told"),
  [
    ((), "--store"),
    (("--store=nowhere",), "no such folder"),
    (("--store=nowhere", "--action=versions"), "no such folder"),
    (("--store={folder}", "--action=versions"), "--task"),
    (("--store={folder}", "--action=publish"), "--submodel"),
    (("--store={folder}", "--action=rollback", "--task=anna"), "--version"),
    (("--store={folder}", "--action=versions", "--task=x"), "unknown"),
    (("--store={folder}", "--action=burn"), "burn"),
  ],
)
def test_what_is_missing_is_one_line(folder, arguments, told):
  given = [each.format(folder=folder) for each in arguments]
  assert told in _refused("store", *given)


@pytest.mark.parametrize(
  "arguments",
  [
    ("store", "--action=publish"),
    ("store", "--action=publish", "--submodel=nowhere"),
    ("store", "--action=publish", "--submodel={folder}", "--task=nobody"),
    ("store", "--action=publish", "--submodel={folder}/nobody.safetensors"),
    ("export", "--workdir=nowhere"),
  ],
)
def test_a_store_is_not_made_for_nothing(folder, tmp_path, arguments):
  verb, *given = (each.format(folder=folder) for each in arguments)
  _refused(verb, f"--store={tmp_path / 'new'}", *given)
  assert not (tmp_path / "new").exists()


@pytest.fixture
def workdir(folder, tmp_path):
  """As much of a run's folder as `hra export` reads."""
  run = tmp_path / "run"
  run.mkdir()
  folder.rename(run / "submodels")
  told = {"config": {}, "backbone_fingerprint": "f" * 32}
  (run / "config.json").write_text(json.dumps(told))
  return run


def test_a_run_is_published(workdir, tmp_path):
  target = tmp_path / "target"
  export = ("export", f"--workdir={workdir}", f"--store={target}")
  assert _ran(*export, "--task=bert") == [["published 'bert', version 1"]]
  assert len(_ran(*export)) == 2
  stores.assert_is(Store(target)["anna"], stores.made("anna", 1))
  assert Store(target).find("anna").version == 1
  Store(workdir / "submodels").publish(stores.made("anna", 5))
  assert _ran(*export, "--task=anna,bert") == [
    ["published 'anna', version 2"],
    ["published 'bert', version 1"],
  ]
  line = _refused(*export, "--task=anna,nobody")
  assert "--task=nobody: expected one of 2 tasks" in line
  line = _refused("export", f"--workdir={workdir}")
  assert "expected --store=STORE or --out=FOLDER, got neither" in line


def test_an_enrolment_publishes_its_own_alone(workdir, tmp_path):
  """Though what it added stands beside the Submodels of the run."""
  added = workdir / "enrolled" / "1"
  added.mkdir(parents=True)
  (added / "config.json").write_text((workdir / "config.json").read_text())
  (added / "enrolment.json").write_text("{}")
  (added / "tasks.json").write_text(json.dumps({"tasks": ["bert"]}))
  target = tmp_path / "target"
  export = ("export", f"--workdir={added}", f"--store={target}")
  line = _refused(*export, "--task=anna")
  assert "--task=anna: expected one of 1 tasks (bert...)" in line
  assert not target.exists()
  for chosen in ([], ["--task=bert"]):
    assert _ran(*export, *chosen) == [["published 'bert', version 1"]]


@pytest.mark.slow  # its twin: test_together.py
def test_a_store_is_heard(tmp_path):
  """As its file is; who is unknown, or of another backbone, is refused."""
  tiny = backbones.load("tiny")
  adapter = AdapterConfig(width=4)
  built = families.build(adapter, tiny.config, mels=tiny.frontend.width)
  rng = np.random.default_rng(0)
  row, shared = (
    jax.tree.map(
      lambda leaf: 0.5 * rng.standard_normal(leaf.shape).astype(np.float32),
      jax.eval_shape(init, jax.random.key(0)),
    )
    for init in (built.init_task, built.init_shared)
  )
  ours = stores.made(
    "anna",
    adapter=adapter,
    row=row,
    shared=shared,
    shared_fingerprint=submodels.shared_fingerprint(shared),
    backbone_fingerprint=tiny.fingerprint,
    tokenizer=tiny.tokenizer.hash,
  )
  folder = tmp_path / "store"
  file = submodels.save(folder, ours)
  other = {"backbone_fingerprint": "0" * 32, "tokenizer": "other"}
  for name, (field, value) in zip("bc", other.items(), strict=True):
    submodels.save(
      folder, dataclasses.replace(ours, task=name, **{field: value})
    )
  wave = tmp_path / "a.wav"
  soundfile.write(wave, 0.1 * rng.standard_normal(16_000), 16_000)
  of_store = ("transcribe", f"--store={folder}")
  heard = _ran(*of_store, "--task=anna", wave)
  assert heard == _ran("transcribe", f"--submodel={file}", wave)
  assert heard != _ran("transcribe", wave)
  assert "one of 3 tasks" in _refused(*of_store, "--task=nobody", wave)
  assert "made for backbone" in _refused(*of_store, "--task=b", wave)
  assert "made for the tokenizer" in _refused(*of_store, "--task=c", wave)
  assert "--task" in _refused(*of_store, wave)
  line = _refused(*of_store, "--task=anna", f"--submodel={file}", wave)
  assert "another Submodel" in line
