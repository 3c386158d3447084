"""What of a LoRA folder has no form here, by its name; what changes nothing."""

import dataclasses
import json
import shutil

import adapted
import jax
import loras
import numpy as np
import originals
import pytest
import safetensors.numpy
from originals import torch

from hra.backbone.foreign.modules import modules
from hra.errors import InputError
from hra.evaluate.recognizer import load_backbone
from hra.peft import folder as peft_folder
from hra.peft import settings
from hra.peft.settings import Settings

FAMILY = ("lasr", "parakeet", "w2v_bert")


def _telling(**fields):
  """A change of adapter_config.json."""

  def spoil(folder):
    path = folder / "adapter_config.json"
    originals.edit_json(path, lambda told: told.update(fields))

  return spoil


def _tensors(edit):
  """A change of the tensors."""

  def spoil(folder):
    path = folder / "adapter_model.safetensors"
    found = safetensors.numpy.load_file(path)
    edit(found)
    safetensors.numpy.save_file(found, path)

  return spoil


FIRST = "base_model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight"


def _pickled(folder):
  (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _later_dtype(tensors):
  tensors[FIRST] = tensors[FIRST].astype(np.float16)


SPOILT = {
  "another kind": (_telling(peft_type="LOHA"), "peft_type", "'LORA'"),
  "DoRA": (_telling(use_dora=True), "use_dora", "off"),
  "a later version's": (_telling(use_new={"a": 1}), "use_new", "off"),
  "biases": (_telling(bias="lora_only"), "bias", "'none'"),
  "B's biases": (_telling(lora_bias=True), "lora_bias", "off"),
  "turned": (_telling(fan_in_fan_out=True), "fan_in_fan_out", "off"),
  "whole modules": (
    _telling(modules_to_save=["ctc_head"]),
    "modules_to_save",
    "['ctc_head']",
  ),
  "tokens": (
    _telling(trainable_token_indices=[1]),
    "trainable_token_indices",
    "off",
  ),
  "a base model that changed": (
    _telling(init_lora_weights="pissa"),
    "init_lora_weights",
    "'pissa'; it changes the base model",
  ),
  "no rank": (_telling(r=0), "r", "a whole number above 0, got 0"),
  "half a rank": (_telling(r=2.5), "r", "a whole number above 0"),
  "no alpha": (_telling(lora_alpha=0), "lora_alpha", "a number above 0"),
  "ranks": (
    _telling(rank_pattern={"v_proj": 3}),
    "rank_pattern",
    "one r for all modules, got 2, 3",
  ),
  "alphas": (
    _telling(alpha_pattern={"layers.1.self_attn.v_proj": 3}),
    "alpha_pattern",
    "one lora_alpha for all modules",
  ),
  "a pattern that is none": (
    _telling(rank_pattern={"(": 3}),
    "rank_pattern",
    "a regular expression",
  ),
  "some layers": (
    _telling(layers_to_transform=[1]),
    "layers_to_transform",
    "each of 2 layers, got [1]",
  ),
  "a module of one layer": (
    _telling(target_modules=["v_proj", "layers.1.self_attn.q_proj"]),
    "target_modules",
    "self_attn.q_proj in 1 of them",
  ),
  "the head": (
    _telling(target_modules=["q_proj", "v_proj", "ctc_head"]),
    "target_modules",
    "also ctc_head",
  ),
  "the subsampling": (
    _telling(target_modules="all-linear"),
    "target_modules",
    "also encoder.subsampling.linear",
  ),
  "positions": (
    _telling(target_modules=["q_proj", "relative_k_proj"]),
    "target_modules",
    "also encoder.layers.0.self_attn.relative_k_proj",
  ),
  "unknown modules": (
    _telling(target_modules=["query"]),
    "target_modules",
    "some of feed_forward1.linear1",
  ),
  "no modules": (
    _telling(target_modules=None),
    "target_modules",
    "a list of names or a regular expression, got None",
  ),
  "another architecture": (
    _telling(auto_mapping={"base_model_class": "LasrForCTC"}),
    "auto_mapping",
    "a LoRA of ParakeetForCTC",
  ),
  "more modules than tensors": (
    _telling(target_modules=["q_proj", "v_proj", "o_proj"]),
    "self_attn.o_proj.lora_A.weight",
    "shape (2, 16), got no such tensor",
  ),
  "fewer modules than tensors": (
    _telling(target_modules=["v_proj"]),
    FIRST,
    "no such tensor, got one of shape (2, 16)",
  ),
  "excluded modules": (
    _telling(exclude_modules=".*q_proj"),
    FIRST,
    "no such tensor",
  ),
  "another rank": (_telling(r=3), FIRST, "shape (3, 16), got (2, 16)"),
  "a lost tensor": (
    _tensors(lambda found: found.pop(FIRST)),
    FIRST,
    "got no such tensor",
  ),
  "a magnitude": (
    _tensors(lambda found: found.update({"x.lora_magnitude": np.zeros(2)})),
    "x.lora_magnitude",
    "no such tensor",
  ),
  "a narrower model's": (
    _tensors(lambda found: found.update({FIRST: found[FIRST][:, :8]})),
    FIRST,
    "shape (2, 16), got (2, 8)",
  ),
  "a type of its own": (
    _tensors(_later_dtype),
    "layers.1.self_attn.q_proj.lora_A.weight",
    "float16, as in other layers",
  ),
  "a pickle": (_pickled, "adapter_model.safetensors", "may run any code"),
  "no weights": (
    lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "adapter_model.safetensors",
    "no such file",
  ),
  "half of a file": (
    lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"abc"),
    "adapter_model.safetensors",
    "a safetensors file",
  ),
  "no JSON": (
    lambda folder: (folder / "adapter_config.json").write_text("{"),
    "adapter_config.json",
    "JSON",
  ),
  "no object": (
    lambda folder: (folder / "adapter_config.json").write_text("[]"),
    "adapter_config.json",
    "a JSON object, got list",
  ),
  "no configuration": (
    lambda folder: (folder / "adapter_config.json").unlink(),
    "adapter_config.json",
    "save_pretrained",
  ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("whole") / "alice"
  return loras.save(folder, loras.made("parakeet"))


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_no_plain_lora_of_the_layers_is_refused(
  name, whole, backbone_of, tmp_path
):
  spoil, where, why = SPOILT[name]
  stored = backbone_of("parakeet").stored
  folder = shutil.copytree(whole, tmp_path / "alice")
  peft_folder.read(folder, stored)
  spoil(folder)
  with pytest.raises(InputError) as refused:
    peft_folder.read(folder, stored)
  message = str(refused.value)
  assert message.startswith(str(folder))
  assert f"{where}: " in message
  assert why in message
  assert "\n" not in message


def test_fields_that_change_nothing_are_read(whole, backbone_of, tmp_path):
  stored = backbone_of("parakeet").stored
  folder = shutil.copytree(whole, tmp_path / "alice")
  expected = peft_folder.read(folder, stored)
  _telling(
    target_modules=r".*\.(q|v|o)_proj",
    exclude_modules=["o_proj"],
    layers_to_transform=[0, 1],
    rank_pattern={"q_proj": 2, "v_proj": 2},
    r=64,
    init_lora_weights="gaussian",
    inference_mode=False,
    lora_dropout=0.3,
  )(folder)
  found = peft_folder.read(folder, stored)
  assert found.adapter == expected.adapter
  jax.tree.map(np.testing.assert_array_equal, found.row, expected.row)


def test_what_peft_has_no_form_of_is_not_written(backbone_of, whole, tmp_path):
  recognizer = backbone_of("parakeet")
  out = tmp_path / "out"
  alice = recognizer.submodel(whole)
  others = {
    "family 'lora', got 'hra'": loras.other(
      recognizer, adapted.VARIANTS["hra"], seed=5
    ),
    f"backbone {recognizer.stored.fingerprint}": dataclasses.replace(
      alice, backbone_fingerprint="f" * 32
    ),
    "row/layers/attention.query/a": dataclasses.replace(
      alice, row={"layers": {}}
    ),
  }
  for why, submodel in others.items():
    with pytest.raises(InputError, match=why):
      peft_folder.write(out, submodel, recognizer.stored)
  assert not out.exists()
  with pytest.raises(InputError, match="a new folder"):
    peft_folder.write(whole, alice, recognizer.stored)


def test_a_row_that_is_another_adapters_says_so_anew(
  backbone_of, whole, tmp_path
):
  """What adapter_config.json said is kept only where it is true."""
  stored = backbone_of("parakeet").stored
  alice = peft_folder.read(whole, stored)
  louder = dataclasses.replace(
    alice, adapter=dataclasses.replace(alice.adapter, alpha=1.5)
  )
  path = peft_folder.write(tmp_path / "out", louder, stored)
  told = json.loads((path / "adapter_config.json").read_text())
  assert told["lora_alpha"] == 1.5
  assert peft_folder.read(path, stored).adapter == louder.adapter


def test_a_backbone_of_our_own_has_no_modules_by_these_names(whole):
  with pytest.raises(InputError, match="one converted from LasrForCTC or"):
    load_backbone("tiny").submodel(whole)


@pytest.mark.parametrize("family", FAMILY)
def test_modules_are_those_of_the_original(family, backbone_of):
  """Every name that we know is one of theirs, and every linear one is known."""
  known = modules(backbone_of(family).stored)
  theirs = dict(originals.model(family).named_modules())
  assert known.keys() <= theirs.keys()
  linear = {
    name for name, each in theirs.items() if isinstance(each, torch.nn.Linear)
  }
  assert {name for name, each in known.items() if each.linear} == linear


def test_targets_are_whole_names_where_ends_mean_more(backbone_of):
  known = modules(backbone_of("parakeet").stored)
  chosen = tuple(name for name in known if name.endswith(".q_proj"))
  found = Settings(rank=2, alpha=4.0, modules=chosen)

  def targets(known):
    told = settings.described(found, known, architecture="ParakeetForCTC")
    return told["target_modules"]

  assert targets(known) == ["self_attn.q_proj"]
  decoder = {"decoder.layers.0.self_attn.q_proj": known["ctc_head"]}
  assert targets(known | decoder) == sorted(chosen)
