"""Whisper against transformers: features, logits, losses, gradients, greedy ids."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import originals
import pytest
import whispers
from originals import torch, transformers

from hra.adapters import families
from hra.adapters.composite import Composite
from hra.backbone import store
from hra.backbone.foreign import checkpoint, convert
from hra.config import AdapterConfig, BackboneConfig, DecoderConfig
from hra.decoders import beam as beams
from hra.model import Model

FEATURES, LOGITS, LOSS, GRADIENT = 5e-5, 5e-6, 1e-5, 5e-5
"""Absolute, absolute, relative, and relative to the largest."""
SAMPLES = (16_000, 9_000, 200)
TEXTS_BU = np.array([[5, 6, 7, 9], [8, 9, 0, 0], [3, 0, 0, 0]])
"""Ids of theirs."""
LENGTHS_B = np.array([4, 2, 1])

CONFIGS = {
  "small": {},
  "odd": {
    "d_model": 18,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 21,
    "activation_function": "gelu_new",
  },
  "one language": {},
}


@functools.cache
def _pair(name, root):
  """(their model, its folder, our backbone)."""
  original = whispers.model(**CONFIGS[name])
  folder = whispers.save(root / name / "theirs", original)
  if name == "one language":
    whispers.change(folder, "generation_config.json", is_multilingual=False)
  convert.convert(str(folder), root / name / "ours")
  return original, folder, store.load(root / name / "ours")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tmp_path_factory.mktemp("whisper")


@pytest.fixture(params=CONFIGS)
def pair(request, root):
  return _pair(request.param, root)


def _features(waves):
  found = whispers.extractor()(
    waves,
    sampling_rate=16_000,
    return_tensors="np",
    return_attention_mask=True,
  )
  return found["input_features"], found["attention_mask"]


def _order(folder):
  return np.array(checkpoint.read(str(folder)).translated.order)


def _ids(labels, order):
  return order[np.asarray(labels)]


@functools.partial(jax.jit, static_argnums=0)
def _ours(model, backbone, mel_BTF, length_B, labels_BU, label_length_B):
  """(loss, its gradient by the features, logits)."""

  def total(mel_BTF):
    def one(*utterance):
      return model.loss(backbone, {}, {}, *utterance)

    found = jax.vmap(one)(mel_BTF, length_B, labels_BU, label_length_B)
    return found.total.sum() / found.weight.sum()

  def logits(*utterance):
    return model.logits(backbone, {}, {}, None, *utterance).logits

  loss, gradient = jax.value_and_grad(total)(mel_BTF)
  return loss, gradient, jax.vmap(logits)(mel_BTF, length_B, labels_BU)


def _theirs(model, prompt, mel_BFT, texts_BU, lengths_B):
  """The same of transformers, the prompt's labels left out of the loss."""
  mel = torch.tensor(mel_BFT, requires_grad=True)
  count, width = texts_BU.shape
  entering = np.concatenate([np.tile(prompt, (count, 1)), texts_BU], axis=1)
  place = np.arange(width + 1)
  targets = np.where(
    place < lengths_B[:, None], np.pad(texts_BU, ((0, 0), (0, 1))), -100
  )
  targets = np.where(place == lengths_B[:, None], whispers.END, targets)
  ignored = np.full((count, len(prompt) - 1), -100)
  found = model(
    mel,
    decoder_input_ids=torch.tensor(entering),
    labels=torch.tensor(np.concatenate([ignored, targets], axis=1)),
  )
  found.loss.backward()
  logits = found.logits.detach().numpy()[:, len(prompt) - 1 :]
  return found.loss.item(), mel.grad.numpy(), logits


@pytest.mark.parametrize("count", [3, 1])
def test_features(pair, count):
  *_, stored = pair
  waves = whispers.waves(SAMPLES[-count:])
  theirs_BFT, mask_BT = _features(waves)
  model = originals.ours(stored)
  for wave, theirs_FT, mask_T in zip(waves, theirs_BFT, mask_BT, strict=True):
    mel = model.features(jnp.asarray(wave), jnp.asarray(len(wave)))
    np.testing.assert_allclose(mel.mel_TF, theirs_FT.T, atol=FEATURES, rtol=0)
    assert mel.length == mask_T.sum()


@pytest.mark.parametrize("count", [3, 1])
def test_logits_losses_and_gradients(pair, count):
  original, folder, stored = pair
  order = _order(folder)
  decoder = stored.config.decoder
  mel_BFT, mask_BT = _features(whispers.waves(SAMPLES[:count]))
  texts_BU, lengths_B = TEXTS_BU[:count], LENGTHS_B[:count]
  theirs = _theirs(
    original, _ids(decoder.prompt, order), mel_BFT, texts_BU, lengths_B
  )
  labels_BU = np.argsort(order)[texts_BU]
  ours = _ours(
    originals.ours(stored),
    stored.module,
    mel_BFT.swapaxes(1, 2),
    mask_BT.sum(axis=1),
    labels_BU,
    lengths_B,
  )
  loss, gradient_BTF, logits_BPV = map(np.asarray, ours)
  their_loss, their_gradient_BFT, their_logits = theirs
  there_BP = np.arange(5) <= lengths_B[:, None]
  assert 0.5 < their_logits.std() < 2
  np.testing.assert_allclose(
    logits_BPV[there_BP],
    their_logits[..., order][there_BP],
    atol=LOGITS * their_logits.std(),
    rtol=0,
  )
  np.testing.assert_allclose(loss, their_loss, rtol=LOSS)
  np.testing.assert_allclose(
    gradient_BTF,
    their_gradient_BFT.swapaxes(1, 2),
    atol=GRADIENT * np.abs(their_gradient_BFT).max(),
    rtol=0,
  )


@functools.partial(jax.jit, static_argnums=0)
def _heard(model, backbone, mel_BTF, length_B):
  def one(mel_TF, length):
    hidden_TD, length, decoder = model.encode(backbone, {}, {}, mel_TF, length)
    return decoder.greedy(hidden_TD, length)

  return jax.vmap(one)(mel_BTF, length_B)


def _generated(original, mel_BFT, prompt, *, name, **asked):
  """Ids by transformers.

  Its Whisper goes on behind what it heard, short as the utterance may be: with times,
  and where sentences don't end, one pass is by its generic search and Whisper's rules.
  """
  mel = torch.tensor(mel_BFT)
  greedily = {"do_sample": False, "num_beams": 1}
  timed = asked.get("timestamps", False)
  if not timed and name != "one language":
    spoken = {"language": "en", "task": "transcribe", **asked}
    return original.generate(mel, **greedily, **spoken)
  rules = original.generation_config
  begun = len(prompt)
  processors = [
    transformers.SuppressTokensAtBeginLogitsProcessor(
      rules.begin_suppress_tokens, begun
    ),
    transformers.SuppressTokensLogitsProcessor(rules.suppress_tokens),
    *([transformers.WhisperTimeStampLogitsProcessor(rules, begun)] * timed),
  ]
  with torch.no_grad():
    return transformers.GenerationMixin.generate(
      original,
      mel,
      decoder_input_ids=torch.tensor(np.tile(prompt, (len(mel), 1))),
      logits_processor=transformers.LogitsProcessorList(processors),
      **greedily,
    )


ASKED = {
  "small": (
    {},
    {"language": "de"},
    {"language": "de", "task": "translate"},
    {"timestamps": True},
  ),
  "odd": ({}, {"timestamps": True}),
  "one language": ({}, {"timestamps": True}),
}


@pytest.mark.parametrize(
  ("name", "asked"),
  [(name, asked) for name, each in ASKED.items() for asked in each],
)
def test_greedy_ids_are_identical(root, name, asked):
  original, folder, stored = _pair(name, root)
  order = _order(folder)
  stored = store.load(
    root / name / "ours",
    computed=BackboneConfig(decoder=DecoderConfig(**asked)),
  )
  mel_BFT, mask_BT = _features(whispers.waves([16_000] * 5 + [9_000, 200]))
  found = _heard(
    originals.ours(stored),
    stored.module,
    mel_BFT.swapaxes(1, 2),
    mask_BT.sum(axis=1),
  )
  prompt = _ids(stored.config.decoder.prompt, order)
  theirs = _generated(original, mel_BFT, prompt, name=name, **asked)
  ended = []
  for ids, labels_U, length in zip(
    theirs.tolist(), found.labels_U, found.length, strict=True
  ):
    ids = ids if ids[0] != whispers.START else ids[len(prompt) :]
    ended.append(whispers.END in ids)
    said = ids[: ids.index(whispers.END)] if ended[-1] else ids
    assert _ids(labels_U[:length], order).tolist() == said
  assert len({tuple(ids) for ids in theirs.tolist()}) > 1
  if asked == {"language": "de"}:
    assert any(ended)
    assert not all(ended)


ADAPTERS = {
  f"{family}, {stacks}": AdapterConfig(
    family=family,
    stacks=stacks,
    **({"width": 4} if family != "bitfit" else {}),
    **({"sites": ("attention", "feed_forward")} if family == "lora" else {}),
  )
  for family in ("hra", "residual", "lora", "bitfit")
  for stacks in ("encoder", "decoder", "both")
}
ADAPTERS["lora, across"] = AdapterConfig(
  family="lora", stacks="both", width=2, sites=("cross_attention",)
)


@pytest.fixture(scope="module")
def adapted(root):
  """(our backbone, features, their lengths)."""
  *_, stored = _pair("small", root)
  mel_BFT, mask_BT = _features(whispers.waves(SAMPLES))
  return stored, mel_BFT.swapaxes(1, 2), mask_BT.sum(axis=1)


def _model(stored, config):
  adapter = families.build(config, stored.config)
  return Model(adapter=adapter, frontend=stored.frontend)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, backbone, shared, rows_B, active_B, mel_BTF, length_B):
  def one(row, active, mel_TF, length):
    labels_U = jnp.arange(1, 5)
    return model.logits(
      backbone, shared, row, active, mel_TF, length, labels_U
    ).logits

  return jax.vmap(one)(rows_B, active_B, mel_BTF, length_B)


def _moved(tree, *, seed=3):
  """Every number another one."""
  leaves, shape = jax.tree.flatten(tree)
  rng = np.random.default_rng(seed)
  moved = [leaf + 0.2 * rng.standard_normal(leaf.shape) for leaf in leaves]
  return jax.tree.unflatten(
    shape,
    [each.astype(leaf.dtype) for each, leaf in zip(moved, leaves, strict=True)],
  )


def _parts(model):
  key = jax.random.key(0)
  return model.adapter.init_shared(key), model.adapter.init_task(key)


def _stacked(rows):
  return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_fresh_row_is_the_backbone_and_another_is_not(adapted, name):
  stored, mel_BTF, length_B = adapted
  model = _model(stored, ADAPTERS[name])
  shared, fresh = _parts(model)
  rows_B = _stacked([fresh, fresh, _moved(fresh)])
  mel_BTF, length_B = mel_BTF[[0] * 3], length_B[[0] * 3]
  bare, unmoved, moved = _logits(
    model,
    stored.module,
    shared,
    rows_B,
    jnp.array([False, True, True]),
    mel_BTF,
    length_B,
  )
  largest = np.abs(bare).max()
  np.testing.assert_allclose(unmoved, bare, atol=1e-6 * largest, rtol=0)
  assert np.abs(moved - bare).max() > 1e-2 * largest


def _free(stored, *, suppressed, suppressed_first=()):
  """The backbone with something else that its searches may not say."""
  decoder = dataclasses.replace(
    stored.config.decoder,
    suppressed=suppressed,
    suppressed_first=suppressed_first,
  )
  config = dataclasses.replace(stored.config, decoder=decoder)
  tensors = store.to_tensors(stored.module)
  return store.from_tensors(tensors, config, stored.frontend, where="")


@pytest.mark.parametrize(
  "name", ["hra, both", "lora, both", "residual, decoder"]
)
def test_label_by_label_is_the_same_as_all_at_once(adapted, name):
  """Greedy search with a moved row says what its own logits say."""
  stored, mel_BTF, length_B = adapted
  module = _free(stored, suppressed=(0,))
  model = _model(stored, ADAPTERS[name])
  shared, fresh = _parts(model)
  row = _moved(fresh)

  @jax.jit
  def both(mel_TF, length):
    hidden_TD, length, decoder = model.encode(
      module, shared, row, mel_TF, length
    )
    heard = decoder.greedy(hidden_TD, length)
    logits = decoder.logits(hidden_TD, length, heard.labels_U)
    return heard, logits.at[:, 0].set(-jnp.inf)[:-1].argmax(axis=-1)

  for mel_TF, length in zip(mel_BTF, length_B, strict=True):
    heard, likeliest_U = both(mel_TF, length)
    assert heard.length == len(likeliest_U) == 16
    np.testing.assert_array_equal(heard.labels_U, likeliest_U)


def test_families_and_stacks_mix_in_a_batch(adapted):
  """Each row says what it says by itself."""
  stored, mel_BTF, length_B = adapted
  models = {
    name: _model(stored, ADAPTERS[name])
    for name in ("hra, both", "lora, decoder", "bitfit, encoder")
  }
  parts = {name: _parts(model) for name, model in models.items()}
  rows = {name: _moved(fresh) for name, (_, fresh) in parts.items()}
  mixed = Composite(
    parts=tuple((name, model.adapter) for name, model in models.items())
  )
  found = _logits(
    Model(adapter=mixed, frontend=stored.frontend),
    stored.module,
    mixed.shared({name: shared for name, (shared, _) in parts.items()}),
    _stacked([mixed.row({name: row}) for name, row in rows.items()]),
    jnp.ones(3, bool),
    mel_BTF,
    length_B,
  )
  for place, (name, model) in enumerate(models.items()):
    alone = _logits(
      model,
      stored.module,
      parts[name][0],
      _stacked([rows[name]]),
      jnp.ones(1, bool),
      mel_BTF[place : place + 1],
      length_B[place : place + 1],
    )
    np.testing.assert_allclose(found[place], alone[0], atol=1e-5, rtol=0)


def test_a_beam_s_total_is_its_sentence_s_likelihood(adapted):
  stored, mel_BTF, length_B = adapted
  model = originals.ours(stored)
  module = _free(stored, suppressed=(), suppressed_first=(0,))

  @functools.partial(jax.jit, static_argnums=0)
  def searched(beam, mel_BTF, length_B):
    def one(mel_TF, length):
      hidden_TD, length, decoder = model.encode(module, {}, {}, mel_TF, length)
      found = beams.search(
        decoder.scorer(hidden_TD, length),
        labels=len(hidden_TD),
        beam=beam,
        weights=beams.Weights(),
        language_model=None,
      )
      labels_U, count = found.labels_WU[0, :16], found.length_W[0]
      logits_PV = decoder.logits(hidden_TD, length, labels_U)
      log_PV = jax.nn.log_softmax(logits_PV.at[0, 0].set(-jnp.inf))
      log_P = jnp.take_along_axis(
        log_PV, jnp.pad(labels_U, (0, 1))[:, None], axis=1
      )[:, 0]
      alike = jnp.where(jnp.arange(len(log_P)) <= count, log_P, 0).sum()
      return found.total_W[0], alike

    return jax.vmap(one)(mel_BTF, length_B)

  totals = []
  for beam in (1, 4):
    total_B, alike_B = searched(beam, mel_BTF, length_B)
    np.testing.assert_allclose(total_B, alike_B, rtol=1e-5, atol=1e-5)
    totals.append(total_B)
  assert (totals[1] >= totals[0]).all()
  assert (totals[1] > totals[0]).any()
