"""Published checkpoints by name: as many parameters as the originals have."""

import originals
import pytest
from originals import torch, transformers

from hra.adapters import table
from hra.backbone import store
from hra.backbone.foreign.published import PUBLISHED, outline

_CONFIGS = {kind.model: kind.config for kind in originals.KINDS.values()}
_CONFIGS["WhisperForConditionalGeneration"] = "WhisperConfig"
_EXTRACTORS = {kind.model: kind.extractor for kind in originals.KINDS.values()}
_EXTRACTORS["WhisperForConditionalGeneration"] = "WhisperFeatureExtractor"


def _theirs(name):
  """The original on PyTorch's meta device, without a number made."""
  told = PUBLISHED[name]
  config = getattr(transformers, _CONFIGS[told.architecture])(**told.config)
  with torch.device("meta"):
    model = getattr(transformers, told.architecture)(config)
  return dict(model.named_parameters())


def _kept(parameters) -> int:
  """Numbers of what a frozen model hears with: BatchNorms are folded, and leave a
  bias where their convolution had none."""
  kept = 0
  for path, leaf in parameters.items():
    if ".conv.norm." in path:
      folded = path.replace("norm.bias", "depthwise_conv.bias")
      has_bias = folded in parameters
      kept += leaf.numel() if folded != path and not has_bias else 0
    elif not path.endswith("masked_spec_embed"):
      kept += leaf.numel()
  return kept


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_as_many_parameters_as_the_original(name):
  ours = table.count(store.abstract(*outline(name)))
  parameters = _theirs(name)
  assert ours == _kept(parameters)
  published = sum(leaf.numel() for leaf in parameters.values()) / 1e6
  # 1,062 millions are published as 1.1 billions.
  assert published == pytest.approx(PUBLISHED[name].millions, rel=0.04)


@pytest.mark.parametrize("name", PUBLISHED)
def test_hears_as_the_original_s_extractor_does(name):
  told = PUBLISHED[name]
  _, frontend = outline(name)
  extractor = getattr(transformers, _EXTRACTORS[told.architecture])
  theirs = extractor(**told.extractor)
  mels = getattr(theirs, "num_mel_bins", None) or theirs.feature_size
  assert frontend.num_mels == mels
