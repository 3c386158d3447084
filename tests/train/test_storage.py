"""A disk that is full or forbidden: one line, and the same bits afterwards."""

import copy
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import disk
import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from hra import jobs, run
from hra.checkpoint import Checkpoints
from hra.config_tree import to_dict
from hra.data.loader import Loader
from hra.errors import InputError, StorageError
from hra.train import log, loop

TESTS = Path(__file__).parent.parent


@pytest.fixture
def small_disk(tmp_path):
  """An empty file system of 2 MiB."""
  with disk.mounted(tmp_path / "small", options="size=2m") as folder:
    yield folder


def _assert_same_bits(first, second):
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    first,
    second,
  )


def _steps(workdir: Path) -> list[int]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line)["step"] for line in lines]


def _assert_goes_on(material, workdir: Path) -> None:
  config, whole, folder = material
  again = jobs.train(run.assemble(config, workdir), quiet=True)
  _assert_same_bits(whole, again)
  assert _steps(workdir) == _steps(folder / "whole")


def _at_step(monkeypatch, step: int, act) -> None:
  """Acts after a step of the training that follows."""
  add = loop.Window.add
  seen = []

  def add_and_act(self, metrics, batch):
    add(self, metrics, batch)
    seen.append(batch)
    if len(seen) == step:
      act()

  monkeypatch.setattr(loop.Window, "add", add_and_act)


@pytest.mark.parametrize("left", [0, 24_576])
def test_a_disk_that_fills_up(material, small_disk, monkeypatch, left):
  """With nothing left the log fails first; with a little, the checkpoint."""
  config, _, _ = material
  filler = small_disk / "filler"

  def fill():
    with filler.open("wb", buffering=0) as file:
      try:
        while file.write(bytes(4096)) == 4096:
          pass
      except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017
      file.truncate(max(0, file.tell() - left))

  _at_step(monkeypatch, 4, fill)
  parts = run.assemble(config, small_disk / "run")
  start = time.monotonic()
  with pytest.raises(StorageError, match="No space left on device") as raised:
    jobs.train(parts, quiet=True)
  assert time.monotonic() - start < 30
  assert str(small_disk / "run") in str(raised.value)
  assert "\n" not in str(raised.value)
  if left:
    assert "newest whole checkpoint: step " in str(raised.value)
  filler.unlink()
  monkeypatch.undo()
  _assert_goes_on(material, small_disk / "run")


def test_a_save_that_fails(material, tmp_path, monkeypatch):
  config, _, _ = material
  save = ocp.training.Checkpointer.save_async

  def refuse(self, step, *args, **kwargs):
    if step == 5:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return save(self, step, *args, **kwargs)

  monkeypatch.setattr(ocp.training.Checkpointer, "save_async", refuse)
  with pytest.raises(StorageError, match=r"/checkpoints/5: .*: step 4\)"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  monkeypatch.undo()
  _assert_goes_on(material, tmp_path / "run")


def test_a_line_of_metrics_that_is_half_written(
  material, tmp_path, monkeypatch
):
  config, _, _ = material
  append = log._Growing.append
  lines = []

  def tear(self, data):
    if self._path.name != "metrics.jsonl":
      return append(self, data)
    lines.append(data)
    if len(lines) < 3:
      return append(self, data)
    append(self, data[:20])
    raise StorageError(self._path, expected="room", got="none")

  monkeypatch.setattr(log._Growing, "append", tear)
  with pytest.raises(StorageError, match=r"metrics\.jsonl"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  monkeypatch.undo()
  again = jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  _assert_same_bits(material[1], again)
  whole = _steps(material[2] / "whole")
  assert _steps(tmp_path / "run") == [step for step in whole if step != 6]


@pytest.mark.parametrize("full", [False, True])
def test_a_recording_that_is_damaged_costs_no_step(
  material, tmp_path, monkeypatch, full
):
  """The first error is told, also where the save that follows fails."""
  config, _, _ = material
  config = copy.deepcopy(config)
  config.train.save_seconds = 3600.0
  batches = Loader.batches

  def damaged(self, start=0):
    for index, batch in enumerate(batches(self, start)):
      if index == 5:
        raise InputError("utterance 'x'", expected="1 samples", got="2")
      yield batch

  monkeypatch.setattr(Loader, "batches", damaged)
  if full:
    refused = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    save = mock.Mock(side_effect=refused)
    monkeypatch.setattr(ocp.training.Checkpointer, "save_async", save)
  with pytest.raises(InputError, match="utterance 'x'"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  monkeypatch.undo()
  saved = Checkpoints(tmp_path / "run" / "checkpoints", access="read")
  assert saved.latest == (None if full else 5)
  _assert_goes_on(material, tmp_path / "run")


_FORBIDDEN = """
import json, os, sys
from pathlib import Path
from hra import checkpoint, config, config_tree, errors, export, jobs, run
from hra import scoring
from hra.train import log
described, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
c = config_tree.from_dict(config.Config, described)
parts = run.assemble(c, folder)
state = run.trained_state(parts)
import soundfile, tensorboard.compat.proto.event_pb2
import tensorboard.summary.writer.record_writer
def acts():
  yield lambda: run.assemble(c, folder / "other")
  yield lambda: jobs.train(parts, quiet=True)
  yield lambda: log.MetricsLog(parts.workdir, 3)
  yield lambda: scoring.evaluate(parts, state, split="test")
  yield lambda: export.rows(parts, state, dev={})
  yield lambda: checkpoint.Checkpoints(folder / "fresh")
  yield lambda: saved(folder / "checkpoints")
def saved(at):
  opened = checkpoint.Checkpoints(at, access="read")
  opened.save(99, state)
  opened.wait()
scoring.evaluate(parts, state, split="test")  # imports, as root
os.seteuid(65534)
for act in acts():
  try:
    act()
  except errors.StorageError as error:
    print(json.dumps(str(error)), flush=True)
os._exit(0)
"""


def test_a_folder_that_may_not_be_written(material, tmp_path):
  if os.geteuid() != 0:
    pytest.skip("only root may become somebody else")
  config, _, folder = material
  # A folder of pytest's is for one user only.
  workdir = Path("/tmp") / f"hra-forbidden-{os.getpid()}"
  shutil.copytree(folder, workdir)
  try:
    for path in [workdir, *workdir.rglob("*")]:
      path.chmod(0o555 if path.is_dir() else 0o444)
    described = json.dumps(to_dict(config)).replace(str(folder), str(workdir))
    run_config = workdir / "whole" / "config.json"
    run_config.chmod(0o644)
    run_config.write_text(
      run_config.read_text().replace(str(folder), str(workdir))
    )
    run_config.chmod(0o444)
    done = subprocess.run(
      [sys.executable, "-c", _FORBIDDEN, described, workdir / "whole"],
      capture_output=True,
      text=True,
      check=False,
      env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
  finally:
    shutil.rmtree(workdir)
  told = [json.loads(line) for line in done.stdout.splitlines()]
  assert (done.returncode, len(told)) == (0, 7), done.stderr
  for message in told:
    assert "Permission denied" in message
    assert "ask for the permission" in message
    assert str(workdir) in message
