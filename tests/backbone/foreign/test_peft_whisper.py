"""LoRA folders of Whisper against PEFT: both stacks, one, or sites of one."""

import dataclasses
import functools
import json
import pathlib

import adapted
import jax
import jax.numpy as jnp
import loras
import numpy as np
import pytest
import whispers
from originals import torch

from hra import submodels
from hra.adapters import families
from hra.backbone.foreign.modules import modules
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.model import Model
from hra.peft import folder as peft_folder

LOGITS = 1e-5
"""Of logits with about unit variance."""
SAMPLES = (16_000, 9_000, 200, 12_000, 5_000)
LABELS_BU = np.random.default_rng(2).integers(
  1, whispers.TEXTS, (len(SAMPLES), 4)
)
UNLIKE = [
  "model.encoder.layers.0.self_attn.v_proj",
  "model.encoder.layers.1.self_attn.v_proj",
  "encoder_attn.k_proj",
  "decoder.layers.0.fc1",
  "decoder.layers.1.fc1",
]
CASES = {
  "query and value": ({"lora_alpha": 4}, "both", 6),
  "everything": (
    {"r": 3, "target_modules": loras.ALL["whisper"], "use_rslora": True},
    "both",
    16,
  ),
  "encoder": (
    {"target_modules": r".*encoder\.layers\..*\.(k_proj|fc2)"},
    "encoder",
    2,
  ),
  "decoder": (
    {
      "r": 4,
      "target_modules": r".*\.decoder\..*(q_proj|out_proj|fc1)",
      "lora_dropout": 0.1,
    },
    "decoder",
    5,
  ),
  "unlike": ({"target_modules": UNLIKE}, "both", 3),
}
"""(settings, stacks, how many projections of a layer)."""


@pytest.fixture(scope="module")
def recognizer(backbone_of):
  return backbone_of("whisper")


@functools.cache
def _heard():
  """(features in their layout, how many frames are the utterances' own)."""
  mel_BFT, mask_BT = whispers.features(whispers.waves(SAMPLES))
  return mel_BFT, mask_BT.sum(axis=1)


def _asked(recognizer, given):
  """Our logits of the labels and of what follows them."""
  mel_BFT, length_B = _heard()
  found, _ = recognizer.logits(
    mel_BFT.swapaxes(1, 2), length_B, given, labels=LABELS_BU
  )
  return np.asarray(found)


def _answers(recognizer, model):
  """Theirs, in our order of labels: the prompt and the labels are given."""
  order = np.array(loras.order(recognizer))
  prompt = recognizer.stored.config.decoder.prompt
  entering_BP = np.concatenate(
    [np.tile(prompt, (len(SAMPLES), 1)), LABELS_BU], axis=1
  )
  with torch.no_grad():
    logits = model(
      torch.tensor(_heard()[0]),
      decoder_input_ids=torch.tensor(order[entering_BP]),
    ).logits
  return logits.numpy()[:, len(prompt) - 1 :, order]


def _differ(ours, theirs):
  return float(np.abs(np.stack(ours) - np.stack(theirs)).max())


@pytest.mark.parametrize(
  ("family", "case"),
  [*(("whisper", case) for case in CASES), ("whisper_odd", "query and value")],
)
def test_equals_peft(family, case, backbone_of, tmp_path):
  settings, stacks, count = CASES[case]
  recognizer = backbone_of(family)
  model = loras.made(family, **settings)
  path = loras.save(tmp_path / "alice", model)
  ours = _asked(recognizer, [path] * len(SAMPLES))
  theirs = _answers(recognizer, model)
  bare = _answers(recognizer, loras.original(family))
  print(
    family,
    case,
    "differs",
    _differ(ours, theirs),
    "acts",
    _differ(bare, theirs),
  )
  assert 0.3 < theirs.std() < 3
  assert _differ(bare, theirs) > 0.1
  assert _differ(ours, theirs) < LOGITS
  alice = recognizer.submodel(path)
  assert alice.adapter.stacks == stacks
  assert sum(len(own["layers"]) for own in _stacks(alice.row)) == count


def _stacks(row):
  """The rows of its stacks."""
  return [row] if "layers" in row else list(row.values())


def _other(recognizer, family, seed):
  adapter = dataclasses.replace(adapted.VARIANTS[family], stacks="both")
  return loras.other(recognizer, adapter, seed)


def test_mixed_with_others_equals_peft(recognizer, tmp_path):
  """LoRAs of both stacks and of one, HRA and residual rows of both, nobody."""
  models = [
    loras.made("whisper", seed=seed, **CASES[case][0])
    for seed, case in enumerate(("query and value", "decoder"))
  ]
  paths = [loras.save(tmp_path / str(i), each) for i, each in enumerate(models)]
  hra, residual = (
    _other(recognizer, family, seed)
    for seed, family in enumerate(("hra", "residual"), start=5)
  )
  ours = _asked(recognizer, [paths[0], hra, None, paths[1], residual])
  expected = [
    _answers(recognizer, models[0])[0],
    _asked(recognizer, [hra] * len(SAMPLES))[1],
    _answers(recognizer, whispers.model())[2],
    _answers(recognizer, models[1])[3],
    _asked(recognizer, [residual] * len(SAMPLES))[4],
  ]
  assert _differ(ours, expected) < LOGITS


@functools.partial(jax.jit, static_argnums=0)
def _said(model, backbone, row, mel_BTF, length_B):
  def one(mel_TF, length):
    hidden_TD, length, decoder = model.encode(backbone, {}, row, mel_TF, length)
    return decoder.greedy(hidden_TD, length)

  return jax.vmap(one)(mel_BTF, length_B)


def test_greedy_ids_are_those_of_peft(recognizer, tmp_path):
  theirs = loras.made("whisper", seed=1)
  alice = recognizer.submodel(loras.save(tmp_path / "alice", theirs))
  stored = recognizer.stored
  adapter = families.build(alice.adapter, stored.config)
  mel_BFT, length_B = _heard()
  model = Model(adapter=adapter, frontend=stored.frontend)
  found = _said(
    model, stored.module, alice.row, mel_BFT.swapaxes(1, 2), length_B
  )
  asked = {"language": "en", "task": "transcribe", "do_sample": False}
  generated, bare = (
    each.generate(torch.tensor(mel_BFT), num_beams=1, **asked).tolist()
    for each in (theirs, whispers.model())
  )
  order = np.array(loras.order(recognizer))
  for ids, labels_U, length in zip(
    generated, found.labels_U, found.length, strict=True
  ):
    said = ids[: ids.index(whispers.END)] if whispers.END in ids else ids
    assert order[labels_U[:length]].tolist() == said
  assert generated != bare


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_round_trip_equals_the_original_bytes(
  case, dtype, recognizer, tmp_path
):
  """Through a Submodel's file; the configuration says all that it said."""
  stored = recognizer.stored
  model = loras.made("whisper", **CASES[case][0])
  path = loras.save(tmp_path / "alice", model, dtype=dtype)
  submodels.save(tmp_path / "store", peft_folder.read(path, stored))
  alice = submodels.Store(tmp_path / "store")["alice"]
  back = peft_folder.write(tmp_path / "back", alice, stored)
  before, after = map(loras.tensors_of, (path, pathlib.Path(back)))
  assert before.keys() == after.keys()
  for name, tensor in before.items():
    assert after[name].dtype == tensor.dtype
    assert after[name].equal(tensor)
  told, again = (
    json.loads((pathlib.Path(each) / "adapter_config.json").read_text())
    for each in (path, back)
  )
  assert told == again


def test_peft_loads_what_was_trained(recognizer, tmp_path):
  """From a folder on, and through a Submodel's file, as what was made here."""
  stored = recognizer.stored
  given = loras.save(tmp_path / "given", loras.made("whisper"))
  alice = recognizer.submodel(given)
  adapter = families.build(alice.adapter, stored.config)
  model = Model(adapter=adapter, frontend=stored.frontend)
  mel_BFT, length_B = _heard()

  @jax.jit
  def gradient(row):
    def loss(row):
      return model.loss(
        *(stored.module, {}, row, mel_BFT[0].T, length_B[0]),
        *(jnp.asarray(LABELS_BU[0]), jnp.asarray(LABELS_BU.shape[1])),
      ).total

    return jax.grad(loss)(row)

  moved = jax.tree.map(
    lambda leaf, slope: np.asarray(leaf - 0.1 * slope),
    alice.row,
    gradient(alice.row),
  )
  for ours, theirs in zip(
    *map(jax.tree.leaves, (moved, alice.row)), strict=True
  ):
    assert (np.abs(ours - theirs).max(axis=(1, 2)) > 0).all()
  trained = dataclasses.replace(alice, row=moved, summary={})
  submodels.save(tmp_path / "store", trained)
  found = submodels.Store(tmp_path / "store")["given"]
  path = peft_folder.write(tmp_path / "out", found, stored)
  ours = _asked(recognizer, [found] * len(SAMPLES))
  theirs = _answers(recognizer, loras.loaded("whisper", path))
  assert _differ(ours, theirs) < LOGITS
  assert _differ(ours, _asked(recognizer, [alice] * len(SAMPLES))) > 0.01


@pytest.mark.parametrize(
  ("stacks", "sites"),
  [
    ("both", ("attention", "feed_forward")),
    ("both", ("cross_attention", "encoder.feed_forward.down")),
    ("both", ("decoder.attention.key",)),
    ("decoder", ("attention.query", "cross_attention")),
  ],
)
def test_rows_of_ours_come_back(stacks, sites, recognizer, tmp_path):
  """A folder without what PEFT said before names its modules alone."""
  adapter = AdapterConfig(family="lora", width=2, stacks=stacks, sites=sites)
  alice = loras.other(recognizer, adapter, seed=4)
  path = peft_folder.write(tmp_path / "alice", alice, recognizer.stored)
  tensors = loras.tensors_of(pathlib.Path(path))
  loaded = loras.loaded("whisper", path)
  theirs = {
    name.replace(".default", ""): leaf
    for name, leaf in loaded.state_dict().items()
    if "lora_" in name
  }
  assert theirs.keys() == tensors.keys()
  assert all(theirs[name].equal(leaf) for name, leaf in tensors.items())
  again = recognizer.submodel(path)
  jax.tree.map(np.testing.assert_array_equal, again.row, alice.row)


REFUSED = {
  "the output": (
    {"target_modules": ["q_proj", "proj_out"]},
    ("base_model.model.proj_out.lora_A.weight", "adapters don't reach it"),
  ),
  "embeddings": (
    {"target_modules": ["q_proj", "embed_tokens"]},
    ("target_modules", "also model.decoder.embed_tokens"),
  ),
  "convolutions": (
    {"target_modules": ["q_proj", "conv2"]},
    ("target_modules", "also model.encoder.conv2"),
  ),
  "a layer of one stack": (
    {"target_modules": ["k_proj", "decoder.layers.1.fc1"]},
    (
      "target_modules",
      "each of 2 layers",
      "fc1 in 1 of them (model.decoder.layers.1.fc1)",
    ),
  ),
  "some layers": (
    {"target_modules": ["k_proj"], "layers_to_transform": [0]},
    ("layers_to_transform", "each of 2 layers, got [0]"),
  ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_layers_have_no_form_of_is_refused(name, recognizer, tmp_path):
  settings, mentioned = REFUSED[name]
  path = loras.save(tmp_path / "alice", loras.made("whisper", **settings))
  with pytest.raises(InputError) as refused:
    recognizer.submodel(path)
  message = str(refused.value)
  assert message.startswith(str(path))
  assert "\n" not in message
  for each in mentioned:
    assert each in message, message


def test_all_that_is_linear_is_reached(recognizer, tmp_path):
  """The tied output is none of it, for PEFT either."""
  model = loras.made("whisper", target_modules="all-linear")
  path = loras.save(tmp_path / "alice", model)
  found = recognizer.submodel(path).adapter
  config = AdapterConfig(
    family="lora", width=2, alpha=8.0, stacks="both", sites=("",)
  )
  stored = recognizer.stored.config
  assert families.build(found, stored) == families.build(config, stored)


def test_modules_are_those_of_the_original(recognizer):
  known = modules(recognizer.stored)
  theirs = dict(whispers.model().named_modules())
  assert known.keys() <= theirs.keys()
  linear = {
    name for name, each in theirs.items() if isinstance(each, torch.nn.Linear)
  }
  reached = {name for name, each in known.items() if each.site}
  assert reached == linear - {"proj_out"}


def test_layers_are_counted_by_stack(backbone_of, tmp_path):
  """Three in the encoder and one in the decoder."""
  stored = backbone_of("whisper_odd").stored

  def read(name, **settings):
    path = loras.save(tmp_path / name, loras.made("whisper_odd", **settings))
    return peft_folder.read(path, stored)

  alice = read("alice", layers_to_transform=[0, 1, 2])
  depths = [
    {site["a"].shape[0] for site in each["layers"].values()}
    for each in (alice.row["encoder"], alice.row["decoder"])
  ]
  assert depths == [{3}, {1}]
  first = {"target_modules": ["encoder_attn.q_proj"], "layers_to_transform": 0}
  assert list(read("bob", **first).row) == ["decoder"]
  with pytest.raises(InputError, match=r"each of 3 layers, got \[0, 1\]"):
    read("cleo", layers_to_transform=[0, 1])
