"""Converted originals that tests of LoRA folders share."""

import pytest


@pytest.fixture(scope="session")
def backbone_of(tmp_path_factory):
  """A family's name -> its small original, converted and loaded."""
  import loras

  made = {}

  def get(family):
    if family not in made:
      folder = tmp_path_factory.mktemp(family)
      made[family] = loras.backbone(folder, family)
    return made[family]

  return get
