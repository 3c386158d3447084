"""Logs that call nobody by their name, whatever a store says."""

import dataclasses
import errno
import io
import json
import logging
import os

import pytest
import serve_stores as stores

from hra.errors import StorageError
from hra.files import storage
from hra.serve import faults
from hra.serve.http import server
from hra.serve.http.logs import Log
from hra.serve.interface import BadSubmodel, Request
from hra.submodels import Store, create, shared_fingerprint

ANNA = "Anna Schmidt"


@pytest.fixture
def log(monkeypatch):
  """A log that gets what loggers say, for one test."""
  for name in ("uvicorn", "hra.serve", "absl"):
    logger = logging.getLogger(name)
    for field in ("handlers", "propagate", "level"):
      monkeypatch.setattr(logger, field, getattr(logger, field))
  # Commands that ran in this process have silenced it.
  logging.getLogger("absl").setLevel(logging.WARNING)

  def made(*, named):
    log = Log(io.StringIO(), named=named)
    server._redirect(log)
    return log, lambda: [*map(json.loads, log._stream.getvalue().splitlines())]

  return made


@pytest.fixture
def spoilt(tmp_path):
  """A store of one file, cut short."""
  folder = tmp_path / "secret"
  create(folder)
  (folder / "Anna Schmidt.safetensors").write_bytes(b"cut short")
  return folder


@pytest.mark.parametrize("named", [False, True])
def test_damaged_files_are_told_once(engine_of, log, spoilt, named):
  told, lines = log(named=named)
  engine = engine_of(Store(spoilt), ready=False)
  for _ in range(3):
    assert engine.tasks() == []
  (line,) = lines()
  assert (line["event"], line["level"]) == ("message", "warning")
  assert line["speaker"] == told.speaker(ANNA)
  assert "expected" in line["detail"]
  text = json.dumps(line)
  assert ("Anna" in text, str(spoilt) in text) == (named, named)
  file = spoilt / "Anna Schmidt.safetensors"
  file.rename(spoilt / "away")
  engine.tasks()
  (spoilt / "away").rename(file)
  engine.tasks()
  assert len(lines()) == 2


@pytest.mark.parametrize("named", [False, True])
def test_who_stands_under_the_name_of_another(
  engine_of, people, log, tmp_path, named
):
  told, lines = log(named=named)
  folder = tmp_path / "secret"
  store = create(folder)
  shared = shared_fingerprint(people[0].shared)
  store.publish(
    dataclasses.replace(people[0], task="Bert", shared_fingerprint=shared)
  )
  os.rename(folder / "Bert.safetensors", folder / "Anna Schmidt.safetensors")
  engine = engine_of(Store(folder), ready=False)
  with pytest.raises(BadSubmodel) as caught:
    engine.submit(Request(stores.wave(0.5), ANNA)).result(stores.TIMEOUT)
  engine.tasks()
  for detail in (told.detail(caught.value, ANNA), lines()[0]["detail"]):
    assert ("Bert" in detail, "Anna" in detail) == (named, named)
    assert (str(folder) in detail) == named


@pytest.mark.parametrize(
  ("error", "got"),
  [
    (OSError(errno.EIO, "Input/output error", "/secret/Anna"), "Input/output"),
    (OSError("/secret/Anna can't be reached"), "OSError"),
  ],
)
def test_a_store_that_fails(log, error, got):
  def failed(work):
    try:
      work()
    except (StorageError, OSError) as caught:
      return faults.gone("Submodel of task 'Anna'", caught)

  def by_storage():
    with storage("/secret/Anna.safetensors", expected="a file"):
      raise error

  def plainly():
    raise error

  told, _ = log(named=False)
  for work in (by_storage, plainly):
    detail = told.detail(failed(work), "Anna")
    assert got in detail
    assert "Anna" not in detail
    assert "/secret" not in detail


def test_other_loggers_say_json_too(log):
  _, lines = log(named=False)
  logging.getLogger("absl").error("of %s", "a library")
  (line,) = lines()
  assert (line["logger"], line["message"]) == ("absl", "of a library")
