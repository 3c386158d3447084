"""Converted transducers against transformers: joint, loss, gradients, greedy ids."""

import copy
import functools

import jax
import numpy as np
import originals
import pytest
from originals import torch

from hra import config_tree
from hra.backbone.network import Backbone

LOGITS, LOSS, GRADIENT = 5e-6, 1e-5, 5e-5
"""Absolute, relative, and relative to the largest."""
LENGTHS = (160, 97, 40)
LABELS_BU = np.array([[1, 1, 4, 5], [5, 4, 0, 0], [7, 0, 0, 0]], np.int32)
LABEL_LENGTHS_B = np.array([4, 2, 1])
"""None is their padding, id 2, which their loss takes for the transcript's end."""

CONFIGS = {"rnnt": ("parakeet_rnnt", {}), "tdt": ("parakeet_tdt", {})}
OTHERS = {
  "rnnt, one layer": (
    "parakeet_rnnt",
    {
      "num_decoder_layers": 1,
      "decoder_hidden_size": 9,
      "hidden_act": "silu",
      "blank_token_id": 3,
      "max_symbols_per_step": 3,
      "attention_bias": False,
      "convolution_bias": False,
    },
  ),
  "tdt, one layer": (
    "parakeet_tdt",
    {
      "num_decoder_layers": 1,
      "decoder_hidden_size": 7,
      "durations": (0, 1, 2),
      "blank_token_id": 0,
      "subsampling_factor": 4,
    },
  ),
  "tdt, other durations": (
    "parakeet_tdt",
    {
      "num_decoder_layers": 3,
      "hidden_act": "tanh",
      "durations": (3, 0, 1),
      "blank_token_id": 4,
      "scale_input": False,
    },
  ),
}
EVERY = CONFIGS | OTHERS
NAMES = [*CONFIGS, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]


@functools.cache
def _pair(name, folder, *, lively=False, quiet=0.0):
  """(the original, ours of it, the checkpoint).

  Args:
    lively: what is said differs from frame to frame.
    quiet: what the blank's bias is more.
  """
  family, changes = EVERY[name]
  original = copy.deepcopy(originals.model(family, **changes))
  with torch.no_grad():
    if lively:
      _enliven(original, torch.tensor(originals.features(family, LENGTHS[:1])))
    original.joint.head.bias[originals.blank(original)] += quiet
  originals.save(folder, family, original)
  return original, *originals.converted(folder)


def _enliven(original, mel):
  """Takes from the joint what all frames, or all scores, have in common."""
  projector, head = original.encoder_projector, original.joint.head
  frames = original.get_audio_features(mel).pooler_output[0]
  scale = 2 / frames.std(dim=0)
  projector.weight *= scale[:, None]
  projector.bias -= frames.mean(dim=0)
  projector.bias *= scale
  frames = original.get_audio_features(mel).pooler_output
  labels = torch.arange(originals.VOCABULARY).repeat(2)[None]
  states = original.decoder(labels)
  logits = original.joint(states[:, None], frames[:, :, None])
  head.bias -= logits.mean(dim=(0, 1, 2))
  if head.out_features > originals.VOCABULARY:  # fewer labels last 0 frames
    head.bias[originals.VOCABULARY] -= 1.5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  return tmp_path_factory.mktemp("originals")


def _order(found):
  """Their logits by ours: durations stay behind labels."""
  decoder, order = found.config.decoder, found.translated.order
  vocabulary = found.config.vocabulary
  behind = len(decoder.durations) if decoder.kind == "tdt" else 0
  return np.array([*order, *range(vocabulary, vocabulary + behind)])


@functools.partial(jax.jit, static_argnums=0)
def _ours(model, backbone, mel_BTF, length_B, labels_BU, label_length_B):
  """(loss, its gradient by the features, logits, valid frames)."""

  def loss(mel_BTF):
    def one(*utterance):
      return model.loss(backbone, {}, {}, *utterance).total

    return jax.vmap(one)(mel_BTF, length_B, labels_BU, label_length_B).sum()

  def logits(mel_TF, length, labels_U):
    return model.logits(backbone, {}, {}, None, mel_TF, length, labels_U)

  total, gradient = jax.value_and_grad(loss)(mel_BTF)
  output = jax.vmap(logits)(mel_BTF, length_B, labels_BU)
  return total, gradient, output.logits, output.length


def _rnnt_loss(logits_TPV, labels, blank):
  """Its definition, state by state: torchaudio, which theirs asks, is not here."""
  logs = logits_TPV.log_softmax(-1)
  alpha = {(0, 0): torch.zeros(())}
  for t in range(len(logs)):
    for u in range(len(labels) + 1):
      ways = []
      if t:
        ways.append(alpha[t - 1, u] + logs[t - 1, u, blank])
      if u:
        ways.append(alpha[t, u - 1] + logs[t, u - 1, labels[u - 1]])
      if ways:
        alpha[t, u] = torch.logsumexp(torch.stack(ways), 0)
  return -alpha[len(logs) - 1, len(labels)] - logs[-1, len(labels), blank]


def _theirs(original, found, mel_BTF, mask_BT):
  blank = found.translated.blank
  order = _order(found)
  mel = torch.tensor(mel_BTF, requires_grad=True)
  encoded = original.get_audio_features(
    mel, attention_mask=torch.tensor(mask_BT), output_attention_mask=True
  )
  there_BU = np.arange(LABELS_BU.shape[1]) < LABEL_LENGTHS_B[:, None]
  labels = torch.tensor(np.where(there_BU, order[LABELS_BU], 2))
  begun = torch.nn.functional.pad(labels, (1, 0), value=blank)
  given = {"encoder_outputs": encoded, "decoder_input_ids": begun}
  if found.config.decoder.kind == "tdt":
    told = original(**given, labels=labels, reduction="sum")
    logits, loss = told.logits, told.loss
  else:
    logits = original(**given).logits
    valid = encoded.attention_mask.sum(-1)
    loss = sum(
      _rnnt_loss(logits[b, : valid[b], : count + 1], labels[b, :count], blank)
      for b, count in enumerate(LABEL_LENGTHS_B)
    )
  loss.backward()
  logits = logits.detach().numpy()[..., order]
  valid_BT = encoded.attention_mask.numpy()
  return loss.item(), mel.grad.numpy(), logits, valid_BT


def _compare(original, backbone, found, family):
  mel_BTF = originals.features(family, LENGTHS)
  mask_BT = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
  loss, gradient, logits, valid_BT = _theirs(original, found, mel_BTF, mask_BT)
  ours = jax.tree.map(
    np.asarray,
    _ours(
      originals.ours(found),
      backbone,
      mel_BTF,
      np.array(LENGTHS),
      LABELS_BU,
      LABEL_LENGTHS_B,
    ),
  )
  np.testing.assert_array_equal(ours[3], valid_BT.sum(axis=1))
  states_BP = np.arange(logits.shape[2]) <= LABEL_LENGTHS_B[:, None]
  there = valid_BT.astype(bool)[:, :, None] & states_BP[:, None]
  return {
    "spread": float(logits[there].std()),
    "logits": float(np.abs(ours[2] - logits)[there].max()),
    "loss": float(abs(ours[0] / loss - 1)),
    "gradient": float(
      np.abs(ours[1] - gradient)[mask_BT].max() / np.abs(gradient).max()
    ),
  }


@pytest.mark.parametrize("name", NAMES)
def test_equals_transformers(name, folders):
  found = _compare(*_pair(name, folders / name), EVERY[name][0])
  print(name, found)
  assert 0.3 < found["spread"] < 3
  assert _equal(found)


def _equal(found):
  return (
    found["logits"] < LOGITS
    and found["loss"] < LOSS
    and found["gradient"] < GRADIENT
  )


def _generated(original, found, features, mask_BT, **given):
  """Ids, and whether search came to the end of each.

  Who is ready goes on saying things there as long as others of the batch aren't:
  what was said at frames beyond one's own is cut off.
  """
  blank, vocabulary = found.translated.blank, found.config.vocabulary
  settings = original.generation_config
  settings.decoder_start_token_id = blank
  behind = len(_order(found)) - vocabulary
  settings.suppress_tokens = [*range(vocabulary, vocabulary + behind)] or None
  with torch.no_grad():
    told = original.generate(features, attention_mask=mask_BT, **given)
    encoded = original.get_audio_features(
      features, attention_mask=mask_BT, output_attention_mask=True
    )
  frames = encoded.last_hidden_state.shape[1]
  valid_B = (
    np.full(len(features), frames)
    if mask_BT is None
    else encoded.attention_mask.sum(-1).numpy()
  )
  ids, ready = [], []
  for tokens, lasts, valid in zip(
    told.sequences.numpy(), told.durations.numpy(), valid_B, strict=True
  ):
    frame = np.cumsum(lasts)[:-1]  # where each but the start was said
    said = tokens[1:][frame < valid]
    ids.append(said[said != blank].tolist())
    ready.append(bool(lasts.sum() >= valid))
  return ids, ready


@functools.partial(jax.jit, static_argnums=0)
def _heard(model, backbone, mel_BTF, length_B):
  def one(mel_TF, length):
    hidden_TD, length, decoder = model.encode(backbone, {}, {}, mel_TF, length)
    return decoder.greedy(hidden_TD, length)

  return jax.vmap(one)(mel_BTF, length_B)


@functools.partial(jax.jit, static_argnums=0)
def _heard_audio(model, backbone, wave_BS, samples_B):
  def one(wave_S, samples):
    return model.greedy(backbone, {}, {}, None, wave_S, samples)

  return jax.vmap(one)(wave_BS, samples_B)


def _ids(heard, found):
  order = np.array(found.translated.order)
  return [
    order[labels_U[:length]].tolist()
    for labels_U, length in zip(*map(np.asarray, heard), strict=True)
  ]


GREEDY = [*CONFIGS, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)]
GREEDY.pop()
"""Of the last one their search takes the place of a duration for the duration."""


def _masked(lengths):
  return np.arange(max(lengths)) < np.array(lengths)[:, None]


@pytest.mark.parametrize("name", GREEDY)
def test_greedy_ids_are_theirs(name, folders):
  """In a batch of different lengths and alone, as many as there may be in a frame."""
  pair = _pair(name, folders / f"{name}, lively", lively=True, quiet=0.5)
  original, backbone, found = pair
  mel_BTF = originals.features(EVERY[name][0], LENGTHS)
  heard = _heard(originals.ours(found), backbone, mel_BTF, np.array(LENGTHS))
  ours = _ids(heard, found)
  mel, mask = torch.tensor(mel_BTF), torch.tensor(_masked(LENGTHS))
  # Without bounds of its own: theirs counts the padding.
  theirs, ready = _generated(original, found, mel, mask, max_new_tokens=300)
  assert all(ready)
  assert ours == theirs
  assert all(ours)
  assert len(set().union(*ours)) > 2
  for b, length in enumerate(LENGTHS):
    alone = _generated(
      original, found, mel[b : b + 1, :length], None, max_new_tokens=300
    )
    assert alone == ([ours[b]], [True])


def test_a_label_that_lasts_no_frame_for_ever(folders):
  """Theirs says as many as it has room for; so does ours, by its own frames."""
  original, backbone, found = _pair("tdt", folders / "tdt")
  mel_BTF = originals.features("parakeet_tdt", LENGTHS)
  heard = _heard(originals.ours(found), backbone, mel_BTF, np.array(LENGTHS))
  ours = _ids(heard, found)
  theirs, ready = _generated(
    original, found, torch.tensor(mel_BTF), torch.tensor(_masked(LENGTHS))
  )
  assert not any(ready)
  for b, length in enumerate(LENGTHS):
    frames = -(-length // 8)
    assert len(ours[b]) == 10 * frames
    assert ours[b][: len(theirs[b])] == theirs[b][: len(ours[b])]


@pytest.mark.filterwarnings("ignore:At least one mel filter")
@pytest.mark.parametrize("name", CONFIGS)
def test_audio_is_heard_as_transformers_hears_it(name, folders):
  pair = _pair(name, folders / f"{name}, lively", lively=True, quiet=0.5)
  original, backbone, found = pair
  rng = np.random.default_rng(0)
  samples = np.array([24_000, 15_345, 8_160])
  waves = [0.1 * rng.standard_normal(n).astype(np.float32) for n in samples]
  inputs = originals.extractor(EVERY[name][0])(
    waves, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt"
  )
  theirs, ready = _generated(
    original,
    found,
    inputs["input_features"],
    inputs["attention_mask"].bool(),
    max_new_tokens=300,
  )
  padded_BS = np.zeros((len(waves), max(samples)), np.float32)
  for row, wave in zip(padded_BS, waves, strict=True):
    row[: len(wave)] = wave
  heard = _heard_audio(originals.ours(found), backbone, padded_BS, samples)
  assert all(ready)
  assert _ids(heard, found) == theirs
  assert sum(map(len, theirs)) > 5


SWITCHES = {
  "rnnt": {
    "joint_activation": "tanh",
    "frame_labels": 4,
    "most_labels": 1,
  },
  "tdt": {
    "joint_activation": "silu",
    "frame_labels": 1,
    "most_labels": 1,
    "durations": (0, 1, 2, 3, 5),
    "sigma": 0.05,
  },
}
"""Another value of each, for the same parameters."""


def _as(config, backbone):
  """The same numbers in a module of another configuration."""
  shapes = jax.eval_shape(
    lambda key: Backbone(config, mels=originals.MELS, key=key),
    jax.random.key(0),
  )
  leaves, tree = jax.tree.leaves(backbone), jax.tree.structure(shapes)
  return jax.tree.unflatten(tree, leaves)


@pytest.mark.parametrize(
  "name", ["rnnt", pytest.param("tdt", marks=pytest.mark.slow)]
)
def test_every_switch_is_heard(name, folders):
  """Joint and loss, or else greedy ids, are no longer theirs."""
  family = EVERY[name][0]
  calm = _pair(name, folders / name)
  lively = _pair(name, folders / f"{name}, lively", lively=True, quiet=0.5)
  mel_BTF = originals.features(family, LENGTHS)

  def said(backbone, found):
    model = originals.ours(found)
    return _ids(_heard(model, backbone, mel_BTF, np.array(LENGTHS)), found)

  def equal(original, backbone, found):
    return _equal(_compare(original, backbone, found, family))

  assert equal(*calm)
  for field, value in SWITCHES[name].items():
    others = []
    for original, backbone, found in (calm, lively):
      config = config_tree.replaced(found.config, f"decoder.{field}", value)
      others.append((original, _as(config, backbone), found))
    heard = [said(*pair[1:]) for pair in (calm, lively)]
    changed = [said(*pair[1:]) for pair in others]
    assert not equal(*others[0]) or changed != heard, field


PARTS = (
  "decoder.embedding.weight",
  "decoder.lstm.weight_ih_l1",
  "decoder.lstm.weight_hh_l0",
  "decoder.lstm.bias_ih_l0",
  "decoder.lstm.bias_hh_l1",
  "decoder.decoder_projector.weight",
  "decoder.decoder_projector.bias",
  "encoder_projector.weight",
  "encoder_projector.bias",
  "joint.head.weight",
  "joint.head.bias",
)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_is_heard(name, folders):
  """A hundredth more in the last row of one: of the blank, or of the last gate."""
  original, backbone, found = _pair(name, folders / name)
  for part in PARTS:
    other = copy.deepcopy(original)
    with torch.no_grad():
      other.get_parameter(part)[-1] += 0.01
    assert not _equal(_compare(other, backbone, found, EVERY[name][0])), part


@pytest.mark.parametrize("row", [0, 1, 2, 3])
def test_no_gate_takes_the_place_of_another(row, folders):
  original, backbone, found = _pair("rnnt", folders / "rnnt")
  other = copy.deepcopy(original)
  gate = 12 * row
  with torch.no_grad():
    other.decoder.lstm.bias_hh_l0[gate : gate + 12] += 0.01
  assert not _equal(_compare(other, backbone, found, "parakeet_rnnt"))
