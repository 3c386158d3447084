"""LoRA folders against PEFT: logits single and mixed, round trips, refusals."""

import json
import pathlib

import adapted
import jax
import loras
import numpy as np
import originals
import pytest
from originals import torch

from hra import submodels
from hra.config import AdapterConfig
from hra.peft import folder as peft_folder

LOGITS = 1e-5
"""Of logits with about unit variance."""
LENGTHS = (64, 41, 50, 17, 33)
FAMILY = ("lasr", "parakeet", "w2v_bert")
CASES = {
  "query and value": lambda family: {
    "target_modules": loras.QUERY_VALUE[family],
    "lora_alpha": 4,
  },
  "pointwise, rslora": lambda family: {
    "r": 3,
    "target_modules": loras.POINTWISE,
    "use_rslora": True,
  },
  "all by a regular expression": lambda family: {
    "r": 4,
    "target_modules": rf".*encoder\.layers\.\d+\..*\.({'|'.join(loras.ALL[family])})",
    "lora_alpha": 2,
    "lora_dropout": 0.1,
  },
}


def _asked(recognizer, family, given):
  """Our logits, and how many of them are valid."""
  found = recognizer.logits(
    originals.features(family, LENGTHS), np.array(LENGTHS), given
  )
  return tuple(map(np.asarray, found))


def _answers(recognizer, family, model):
  mel_BTF = originals.features(family, LENGTHS)
  return loras.logits(model, mel_BTF, LENGTHS, order=loras.order(recognizer))


def _differ(ours_BTV, theirs_BTV, valid_B):
  return max(
    float(np.abs(ours - theirs)[:valid].max())
    for ours, theirs, valid in zip(ours_BTV, theirs_BTV, valid_B, strict=True)
  )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILY)
def test_equals_peft(family, case, backbone_of, tmp_path):
  recognizer = backbone_of(family)
  model = loras.made(family, **CASES[case](family))
  path = loras.save(tmp_path / "alice", model)
  ours, valid_B = _asked(recognizer, family, [path] * len(LENGTHS))
  theirs = _answers(recognizer, family, model)
  bare, _ = _asked(recognizer, family, None)
  found = _differ(ours, theirs, valid_B)
  acts = _differ(bare, theirs, valid_B)
  print(family, case, "differs", found, "from the bare model", acts)
  assert 0.3 < theirs[0, : valid_B[0]].std() < 3
  assert acts > 0.1
  assert found < LOGITS


@pytest.mark.parametrize("family", FAMILY)
def test_mixed_with_others_equals_peft(family, backbone_of, tmp_path):
  """Two LoRAs of unlike ranks and types, HRA, a residual adapter, nobody."""
  recognizer = backbone_of(family)
  models = [
    loras.made(family, seed=1, **CASES["query and value"](family)),
    loras.made(family, seed=2, **CASES["pointwise, rslora"](family)),
  ]
  paths = [loras.save(tmp_path / str(i), each) for i, each in enumerate(models)]
  others = [
    loras.other(recognizer, adapted.VARIANTS[name], seed)
    for seed, name in enumerate(("hra", "residual"), start=5)
  ]
  given = [
    str(paths[0]),
    others[0],
    None,
    recognizer.submodel(paths[1]),
    others[1],
  ]
  ours, valid_B = _asked(recognizer, family, given)
  expected = [
    _answers(recognizer, family, models[0])[0],
    _asked(recognizer, family, [others[0]] * len(LENGTHS))[0][1],
    _answers(recognizer, family, originals.model(family))[2],
    _answers(recognizer, family, models[1])[3],
    _asked(recognizer, family, [others[1]] * len(LENGTHS))[0][4],
  ]
  assert _differ(ours, expected, valid_B) < LOGITS


@pytest.mark.parametrize("other", ["hra", None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_equal_peft_beside_others(
  dtype, other, backbone_of, tmp_path
):
  family = "w2v_bert"
  recognizer = backbone_of(family)
  adapter = adapted.VARIANTS[other] if other else None
  beside = loras.other(recognizer, adapter, seed=5) if adapter else None
  folders = [
    loras.save(tmp_path / str(each), loras.made(family, seed=3), dtype=each)
    for each in (dtype, torch.float32, torch.bfloat16)
  ]
  given = [folders[0], folders[1], beside, folders[2], folders[0]]
  ours, valid_B = _asked(recognizer, family, given)
  alone, _ = _asked(recognizer, family, [beside] * len(given))
  theirs = [
    alone[index]
    if path is beside
    else _answers(recognizer, family, loras.loaded(family, path))[index]
    for index, path in enumerate(given)
  ]
  assert _differ(ours, theirs, valid_B) < LOGITS


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILY)
def test_round_trip_equals_the_original_bytes(
  family, dtype, backbone_of, tmp_path
):
  """Through a Submodel's file; the configuration says all that it said."""
  stored = backbone_of(family).stored
  model = loras.made(
    family,
    target_modules=loras.ALL[family],
    use_rslora=True,
    rank_pattern={loras.ALL[family][0]: 2},
    task_type="FEATURE_EXTRACTION",
  )
  path = loras.save(tmp_path / "alice", model, dtype=dtype)
  saved = submodels.save(tmp_path / "store", peft_folder.read(path, stored))
  alice = submodels.Store(tmp_path / "store")["alice"]
  assert saved.name == "alice.safetensors"
  assert alice.backbone_fingerprint == stored.fingerprint
  back = peft_folder.write(tmp_path / "back", alice, stored)
  before, after = map(loras.tensors_of, (path, pathlib.Path(back)))
  assert before.keys() == after.keys()
  for name, tensor in before.items():
    assert after[name].dtype == tensor.dtype
    assert after[name].shape == tensor.shape
    assert (
      after[name].contiguous().view(torch.uint8).equal(tensor.view(torch.uint8))
    )
  told, again = (
    json.loads((pathlib.Path(each) / "adapter_config.json").read_text())
    for each in (path, back)
  )
  assert told == again


@pytest.mark.parametrize(
  "adapter",
  [
    AdapterConfig(family="lora", width=3),
    AdapterConfig(
      family="lora", width=2, alpha=1.3, sites=("convolution", "first.down")
    ),
  ],
)
@pytest.mark.parametrize("family", FAMILY)
def test_peft_loads_what_is_ours(family, adapter, backbone_of, tmp_path):
  """A row that PEFT never saw, of types that it trains in."""
  recognizer = backbone_of(family)
  alice = loras.other(recognizer, adapter, seed=4)
  path = peft_folder.write(tmp_path / "alice", alice, recognizer.stored)
  ours, valid_B = _asked(recognizer, family, [alice] * len(LENGTHS))
  theirs = _answers(recognizer, family, loras.loaded(family, path))
  bare, _ = _asked(recognizer, family, None)
  assert _differ(bare, theirs, valid_B) > 0.1
  assert _differ(ours, theirs, valid_B) < LOGITS
  again = peft_folder.read(path, recognizer.stored)
  jax.tree.map(np.testing.assert_array_equal, again.row, alice.row)
