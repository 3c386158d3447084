"""What tests of whole runs share."""

import corpus
import pytest

from hra import jobs, run


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  """A run's configuration, its trained state, and the folder of both."""
  folder = tmp_path_factory.mktemp("material")
  data = corpus.prepared(folder)
  backbone = corpus.backbone_folder(folder, data)
  config = corpus.config(data, backbone)
  whole = jobs.train(run.assemble(config, folder / "whole"), quiet=True)
  return config, whole, folder
