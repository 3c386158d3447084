"""LoRA folders as PEFT saves them, of the small random models of `originals` and
`whispers`."""

import copy
import pathlib

import adapted
import numpy as np
import originals
import pytest
import safetensors.torch
import whispers
from originals import torch

from hra import submodels
from hra.adapters import families
from hra.backbone.foreign.convert import convert
from hra.backbone.foreign.family import Translated
from hra.evaluate.recognizer import Recognizer, load_backbone
from hra.submodels import Submodel

peft = pytest.importorskip("peft")

QUERY_VALUE = {
  "lasr": ["q_proj", "v_proj"],
  "parakeet": ["q_proj", "v_proj"],
  "w2v_bert": ["linear_q", "linear_v"],
  "whisper": ["q_proj", "v_proj"],
  "whisper_odd": ["q_proj", "v_proj"],
}
WHISPERS = {"whisper": "small", "whisper_odd": "odd"}
"""Those of `whispers.CONFIGS`."""
POINTWISE = ["pointwise_conv1", "pointwise_conv2"]
ALL = {
  "lasr": [
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("linear1", "linear2", *POINTWISE),
  ],
  "w2v_bert": [
    *("linear_q", "linear_k", "linear_v", "linear_out"),
    *("intermediate_dense", "output_dense", *POINTWISE),
  ],
  "whisper": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
ALL["parakeet"] = ALL["lasr"]
"""Every projection of a layer that adapters reach."""


def original(family: str):
  if family in WHISPERS:
    return whispers.model(**whispers.CONFIGS[WHISPERS[family]])
  return originals.model(family)


def made(family: str, *, seed: int = 0, dtype=None, **settings):
  """A model with a LoRA of random numbers, both factors."""
  settings = {"r": 2, "target_modules": QUERY_VALUE[family], **settings}
  base = copy.deepcopy(original(family))
  model = peft.get_peft_model(base, peft.LoraConfig(**settings)).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, leaf in model.named_parameters():
      if "lora_" in name:
        inputs = leaf[0].numel()
        drawn = torch.randn(leaf.shape, generator=generator)
        leaf.copy_((drawn * 0.5 * inputs**-0.5).to(dtype or leaf.dtype))
  return model


def save(folder: pathlib.Path, model, *, dtype=None) -> pathlib.Path:
  """As `save_pretrained` does; in another type, as trainers in it do."""
  model.save_pretrained(folder)
  if dtype is not None:
    tensors = {
      name: leaf.to(dtype) for name, leaf in tensors_of(folder).items()
    }
    path = folder / "adapter_model.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
  return folder


def tensors_of(folder: pathlib.Path):
  return safetensors.torch.load_file(folder / "adapter_model.safetensors")


def loaded(family: str, folder: pathlib.Path):
  """What PEFT makes of a folder."""
  base = copy.deepcopy(original(family))
  return peft.PeftModel.from_pretrained(base, str(folder)).eval()


def backbone(folder: pathlib.Path, family: str) -> Recognizer:
  """The converted original of a family."""
  source = folder / "original"
  if family in WHISPERS:
    whispers.save(source, original(family))
  else:
    originals.save(source, family, original(family))
  convert(str(source), folder / "backbone")
  return load_backbone(folder / "backbone")


def other(recognizer, adapter, seed):
  """A Submodel of another family, of random numbers."""
  built = families.build(adapter, recognizer.stored.config)
  shared, row = adapted.trees(built, seed=seed)
  return Submodel(
    task=f"task {seed}",
    adapter=adapter,
    row=row,
    shared=shared,
    backbone_fingerprint=recognizer.stored.fingerprint,
    shared_fingerprint=submodels.shared_fingerprint(shared),
    summary={},
  )


def order(recognizer: Recognizer) -> tuple[int, ...]:
  """Their ids by our labels."""
  stored = recognizer.stored
  return Translated(stored.config, stored.about["blank"]).order


def logits(model, mel_BTF, length_B, *, order) -> np.ndarray:
  """[B, T, V] in our order of labels."""
  mask_BT = np.arange(mel_BTF.shape[1]) < np.asarray(length_B)[:, None]
  with torch.no_grad():
    found = model(
      torch.tensor(mel_BTF), attention_mask=torch.tensor(mask_BT)
    ).logits
  return found.numpy()[..., list(order)]
