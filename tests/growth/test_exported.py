"""A run's Submodels that can't be read any more are written anew by what made them."""

import json

import newcomers
import pytest
import safetensors.numpy

from hra import jobs, run, submodels
from hra.errors import InputError
from hra.growth.enrolment import enroll
from hra.growth.options import Options


def _as_of_old(path):
  """The file as the first format had it."""
  with safetensors.safe_open(path, "numpy") as file:
    told = json.loads(file.metadata()["hra"])
  for name in ("version", "fingerprint", "tokenizer"):
    del told[name]
  metadata = {"hra": json.dumps({**told, "format": 1})}
  tensors = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(tensors, path, metadata=metadata)


def test_that_files_of_the_first_format_are_written_anew(copied, tmp_path):
  workdir = copied("table")
  manifest = str(newcomers.write(tmp_path / "new"))
  options = Options(settings=("train.steps=1",))
  enroll(workdir, manifest, options, quiet=True)
  store = submodels.Store(workdir / "submodels")
  before = {name: store[name] for name in store}
  for name in before:
    _as_of_old(workdir / "submodels" / submodels.file_name(name))
  assert not jobs.is_finished(workdir)
  with pytest.raises(
    InputError, match=r"expected format 2, got 1; .*hra train"
  ):
    store["anna"]
  parts = run.reopen(workdir)
  jobs.finish(parts, jobs.train(parts, quiet=True))  # as hra train does
  assert jobs.is_finished(workdir)
  assert set(store) == before.keys() - {"zoe"}
  enroll(workdir, manifest, options, quiet=True)
  assert set(store) == before.keys()
  for name, each in before.items():
    found = store[name]
    assert found.version > each.version  # the index remembers the number
    assert dict(found.summary) == dict(each.summary)


def test_that_a_run_whose_store_is_packed_is_finished(copied, tmp_path):
  workdir = copied("table")
  store = submodels.Store(workdir / "submodels")
  assert store.pack().packed == 3
  assert jobs.is_finished(workdir)
  manifest = str(newcomers.write(tmp_path / "new", names=("bert/b",)))
  with pytest.raises(InputError, match="one that is in"):
    enroll(workdir, manifest, Options(), quiet=True)
  enroll(
    workdir,
    str(newcomers.write(tmp_path / "other")),
    Options(settings=("train.steps=1",)),
    quiet=True,
  )
  assert set(store) == {"anna", "bert/b", "cleo", "zoe"}
