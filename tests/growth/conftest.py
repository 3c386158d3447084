"""Finished runs that tests add tasks to and remove tasks from."""

import dataclasses
import shutil
from pathlib import Path

import corpus
import pytest

from hra import jobs, run, scoring
from hra.config import SpaceConfig
from hra.evaluate.report import write_report

SPACES = {
  "table": SpaceConfig(),
  "embedding": SpaceConfig(kind="embedding", size=4, rank=3),
  "offset": SpaceConfig(kind="offset"),
}


@pytest.fixture(scope="session")
def material(tmp_path_factory):
  """Prepared data and a backbone: of all configurations here."""
  folder = tmp_path_factory.mktemp("growth")
  data = corpus.prepared(folder)
  return folder, data, corpus.backbone_folder(folder, data)


@pytest.fixture(scope="session")
def finished(material):
  """A space's name -> the folder of a finished and evaluated run; look only."""
  folder, data, backbone = material
  done: dict[str, Path] = {}

  def get(space: str) -> Path:
    if space not in done:
      workdir = folder / space
      config = corpus.config(data, backbone, keep=2, select="best")
      config = dataclasses.replace(config, space=SPACES[space])
      config.train.eval_every = 2
      config.evaluate.guard_words, config.evaluate.bootstrap = 2, 100
      parts = run.assemble(config, workdir)
      trained = jobs.train(parts, quiet=True)
      jobs.finish(parts, trained)
      scoring.evaluate(parts, trained, split="test")
      write_report([workdir], workdir / "report.html")
      done[space] = workdir
    return done[space]

  return get


@pytest.fixture
def copied(finished, tmp_path):
  """A space's name -> a run of the test's own."""

  def get(space: str) -> Path:
    return Path(shutil.copytree(finished(space), tmp_path / space))

  return get
