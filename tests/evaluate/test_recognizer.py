"""Mixed requests equal single ones; what a recogniser refuses."""

import dataclasses
import itertools

import adapted
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import families
from hra.backbone import store
from hra.config import AdapterConfig, SearchConfig
from hra.data.tokenizer import Tokenizer
from hra.decoders.beam import Weights, search
from hra.decoders.interface import BLANK
from hra.decoders.scorers import CtcScorer
from hra.errors import InputError
from hra.evaluate import recognizer as recognizer_module
from hra.evaluate.recognizer import load_backbone
from hra.evaluate.search import open_search
from hra.features.frontend import log_mel
from hra.submodels import Submodel

FULL = AdapterConfig(family="full")
SIZES = (6000, 7999, 4321, 5000, 6789, 6100, 7500)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
  folder = tmp_path_factory.mktemp("backbone")
  store.save(
    folder,
    tiny.backbone(),
    frontend=tiny.FRONTEND,
    tokenizer=Tokenizer.train(["abcde edcba"], vocabulary=8, kind="char"),
    about={},
  )
  return load_backbone(folder)


@pytest.fixture(scope="module")
def waves():
  rng = np.random.default_rng(0)
  return [
    (0.1 * rng.standard_normal(size)).astype(np.float32) for size in SIZES
  ]


_SCALES = {"full": 0.1, "lora": 0.3}
"""Of rows that multiply what weights do: larger ones multiply rounding, too."""


def _submodel(
  recognizer, seed, *, adapter=tiny.ADAPTER, shared_seed=5, summary=None
) -> Submodel:
  built = families.build(adapter, tiny.BACKBONE, mels=tiny.FRONTEND.num_mels)
  scale = _SCALES.get(adapter.family, 1.0)
  rng = np.random.default_rng(seed)
  return Submodel(
    task=f"task {seed}",
    adapter=adapter,
    row=jax.tree.map(
      lambda leaf: (scale * rng.standard_normal(leaf.shape)).astype(np.float32),
      jax.eval_shape(built.init_task, jax.random.key(0)),
    ),
    shared=jax.device_get(built.init_shared(jax.random.key(shared_seed))),
    backbone_fingerprint=recognizer.stored.fingerprint,
    shared_fingerprint=f"of {adapter} {shared_seed}",
    summary=summary or {},
  )


@pytest.fixture(scope="module")
def submodels(recognizer):
  """Two speakers of one run, nobody, one of another run, and other families."""
  anna, bert = _submodel(recognizer, 1), _submodel(recognizer, 2)
  return [
    anna,
    None,
    bert,
    _submodel(recognizer, 3, shared_seed=6),
    _submodel(recognizer, 4, adapter=adapted.VARIANTS["residual"]),
    _submodel(recognizer, 5, adapter=adapted.VARIANTS["lora"]),
    _submodel(recognizer, 6, adapter=FULL),
  ]


@pytest.fixture(scope="module")
def one_by_one(recognizer, waves, submodels):
  """Logits of each waveform's valid frames, asked for by itself."""
  answers = []
  for wave, submodel in zip(waves, submodels, strict=True):
    mel_BTF, lengths_B = recognizer.features([wave])
    logits, valid = recognizer.logits(mel_BTF, lengths_B, [submodel])
    answers.append(np.asarray(logits[0, : int(valid[0])]))
  return answers


def test_features_are_those_of_each_wave(recognizer, waves):
  mel_BTF, lengths_B = recognizer.features(waves)
  for wave, mel_TF, length in zip(waves, mel_BTF, lengths_B, strict=True):
    alone = log_mel(jnp.asarray(wave), len(wave), tiny.FRONTEND)
    assert int(length) == int(alone.length) == (len(wave) - 240) // 160
    np.testing.assert_allclose(
      mel_TF[:length], alone.mel_TF[:length], atol=1e-4
    )
    assert not mel_TF[length:].any()


def test_mixed_logits_equal_one_by_one(
  recognizer, waves, submodels, one_by_one
):
  logits_BTV, valid_B = recognizer.logits(
    *recognizer.features(waves), submodels
  )
  for logits, valid, alone in zip(logits_BTV, valid_B, one_by_one, strict=True):
    assert int(valid) == len(alone)
    np.testing.assert_allclose(
      logits[: len(alone)], alone, atol=2e-5 * np.abs(alone).max()
    )


def test_submodels_change_what_is_heard_and_none_does_not(
  recognizer, waves, one_by_one
):
  bare_BTV, valid_B = recognizer.logits(*recognizer.features(waves))
  for member, alone in enumerate(one_by_one):
    bare = np.asarray(bare_BTV[member, : int(valid_B[member])])
    largest = np.abs(bare - alone).max() / np.abs(bare).max()
    if member == 1:  # the one without a Submodel
      assert largest < 1e-4
    else:
      assert largest > 1e-2


def test_transcribe_says_what_the_logits_say(
  recognizer, waves, submodels, one_by_one
):
  texts = recognizer.transcribe(waves, submodels)
  expected = [
    recognizer.stored.tokenizer.decode(
      [
        label
        for label, _ in itertools.groupby(alone.argmax(axis=1).tolist())
        if label != BLANK
      ]
    )
    for alone in one_by_one
  ]
  assert texts == expected
  assert len(set(texts)) > 1


def test_families_and_runs_are_one_program(recognizer, waves, submodels):
  """Two HRA runs, two families and nobody; again in another order."""
  mixed = submodels[:6]
  compiled = recognizer_module._logits._cache_size()
  mel_BTF, lengths_B = recognizer.features(waves[:6])
  recognizer.logits(mel_BTF, lengths_B, mixed)
  assert recognizer_module._logits._cache_size() <= compiled + 1
  compiled = recognizer_module._logits._cache_size()
  recognizer.logits(mel_BTF, lengths_B, mixed[::-1])
  assert recognizer_module._logits._cache_size() == compiled
  assert len(list(recognizer.grouping.groups(mixed, 6))) == 1


def test_few_programs_answer_requests_of_all_sizes(
  recognizer, waves, submodels, one_by_one
):
  """Of 5, 6, 7 and 8 rows: one, which says the same."""
  anna = submodels[0]
  mel_BTF, lengths_B = recognizer.features([waves[0]] * 8)
  for count in range(5, 9):
    logits_BTV, valid_B = recognizer.logits(
      mel_BTF[:count], lengths_B[:count], [anna] * count
    )
    assert len(logits_BTV) == len(valid_B) == count
    np.testing.assert_allclose(
      logits_BTV[-1, : int(valid_B[-1])],
      one_by_one[0],
      atol=2e-5 * np.abs(one_by_one[0]).max(),
    )
    if count == 5:
      compiled = recognizer_module._logits._cache_size()
      featurised = recognizer_module._features._cache_size()
    recognizer.features([waves[0]] * count)
  assert recognizer_module._logits._cache_size() == compiled
  assert recognizer_module._features._cache_size() == featurised


def test_what_a_file_says_of_its_shared_parameters_is_verified(
  recognizer, waves, submodels
):
  """Two runs of one alleged fingerprint; and one run that was loaded twice."""
  anna, other = submodels[0], submodels[3]
  alleged = dataclasses.replace(
    other, shared_fingerprint=anna.shared_fingerprint
  )
  features = recognizer.features(waves[:2])
  told, _ = recognizer.logits(*features, [anna, alleged])
  expected, _ = recognizer.logits(*features, [anna, other])
  np.testing.assert_array_equal(told, expected)
  again = jax.tree.map(np.copy, submodels[2].shared)
  (group,) = recognizer.grouping.groups(
    [anna, dataclasses.replace(submodels[2], shared=again)], 2
  )
  assert group.model.adapter == families.build(tiny.ADAPTER, tiny.BACKBONE)


def test_nothing_asked_has_no_logits(recognizer, waves):
  features, lengths = recognizer.features(waves[:2])
  some, valid = recognizer.logits(features, lengths)
  none, no_valid = recognizer.logits(features[:0], lengths[:0])
  assert none.shape == (0, *some.shape[1:])
  assert (none.dtype, no_valid.dtype) == (some.dtype, valid.dtype)
  assert no_valid.shape == (0,)
  empty, _ = recognizer.features([])
  assert len(empty) == 0


def test_one_family_does_not_pay_for_the_mixture(recognizer, submodels):
  none = _submodel(recognizer, 9, adapter=adapted.NONE)
  (group,) = recognizer.grouping.groups([submodels[0], none, submodels[2]], 3)
  assert group.model.adapter == families.build(tiny.ADAPTER, tiny.BACKBONE)
  assert group.active.tolist() == [True, False, True, False]
  assert jax.tree.structure(group.rows) == jax.tree.structure(submodels[0].row)


def test_full_fine_tuning_is_answered_by_itself(recognizer, submodels):
  full = submodels[6]
  mixed, alone = recognizer.grouping.groups([full, None, submodels[0], full], 4)
  assert mixed.members == [1, 2]
  assert alone.members == [0, 3]
  assert alone.model == recognizer.grouping.bare
  assert not alone.active.any()


def test_who_was_loaded_twice_is_merged_once(recognizer, submodels):
  full = submodels[6]
  copied = jax.tree.map(np.copy, full.row)
  other = jax.tree.map(lambda leaf: leaf + 1, full.row)
  chosen = [
    full,
    *(dataclasses.replace(full, row=row) for row in (copied, other)),
  ]
  groups = list(recognizer.grouping.groups(chosen, 3))
  assert [group.members for group in groups] == [[0, 1], [2]]


@pytest.mark.parametrize(
  ("verdict", "guarded"),
  [("not better", True), ("better", False), ("unjudged", False), (None, False)],
)
def test_guard_answers_by_the_bare_backbone(
  recognizer, waves, verdict, guarded
):
  """Unless it is switched off; of old files and unjudged rows it knows nothing."""
  summary = {"verdict": verdict} if verdict else {"dev_wer": 0.9}
  submodel = _submodel(recognizer, 1, summary=summary)
  (bare, ours), (_, unguarded) = (
    recognizer.transcribe([waves[0]] * 2, [None, submodel], guard=guard)
    for guard in (True, False)
  )
  assert submodel.worse_than_backbone == guarded
  assert bare != unguarded
  assert ours == (bare if guarded else unguarded)


def test_logits_are_guarded_as_texts_are(recognizer, waves, one_by_one):
  summary = {"verdict": "not better"}
  worse = _submodel(recognizer, 1, summary=summary)
  features = recognizer.features([waves[0]])
  logits_BTV, valid_B = recognizer.logits(*features, [worse], guard=False)
  valid = int(valid_B[0])
  np.testing.assert_array_equal(logits_BTV[0, :valid], one_by_one[0])
  guarded_BTV, _ = recognizer.logits(*features, [worse])
  bare_BTV, _ = recognizer.logits(*features)
  np.testing.assert_array_equal(guarded_BTV, bare_BTV)
  assert not np.array_equal(guarded_BTV, logits_BTV)


def test_row_of_other_sizes_is_refused_by_leaf(recognizer, waves):
  narrow = dataclasses.replace(tiny.ADAPTER, width=4)
  wrong = dataclasses.replace(_submodel(recognizer, 1), adapter=narrow)
  with pytest.raises(InputError) as refused:
    recognizer.transcribe(waves[:1], [wrong])
  assert str(refused.value).startswith(
    "Submodel of task 'task 1': row/head/output/kernel: "
    "expected floats of shape (4, 16), got floats of shape (8, 16)"
  )
  lacking = dataclasses.replace(_submodel(recognizer, 1), shared={})
  with pytest.raises(InputError, match=r"shared/controller/bias: .* nothing"):
    recognizer.transcribe(waves[:1], [lacking])


def test_nothing_asked_nothing_answered(recognizer):
  assert recognizer.transcribe([]) == []


def test_wrong_number_of_submodels(recognizer, waves):
  with pytest.raises(InputError, match="submodels: expected one for each of 7"):
    recognizer.transcribe(waves, [None, None])


@pytest.mark.parametrize(
  "wave",
  [
    np.zeros(8000, np.int16),
    np.zeros((2, 8000), np.float32),
    np.zeros((), np.float32),
  ],
)
def test_wave_that_is_no_mono_float_is_named(recognizer, waves, wave):
  """By its place in the request, also where a request is run in groups."""
  chosen = [_submodel(recognizer, 1, adapter=FULL), None, None]
  with pytest.raises(InputError, match="waveform 2: expected one-dimensional"):
    recognizer.transcribe([*waves[:2], wave], chosen)
  with pytest.raises(InputError, match="waveform 1: expected one-dimensional"):
    recognizer.features([waves[0], wave])


def test_submodel_of_another_backbone_is_refused(recognizer, waves):
  submodel = _submodel(recognizer, 1)
  other = dataclasses.replace(submodel, backbone_fingerprint="0" * 32)
  with pytest.raises(InputError) as refused:
    recognizer.transcribe(waves[:2], [None, other])
  assert "'task 1'" in str(refused.value)
  assert "0" * 32 in str(refused.value)


def test_a_beam_where_there_is_none_is_refused(recognizer):
  wanted, tokenizer = SearchConfig(beam=4), recognizer.stored.tokenizer
  assert open_search(SearchConfig(), tokenizer, decoder="tdt") is None
  with pytest.raises(InputError, match="greedy search with decoder 'tdt'"):
    open_search(wanted, tokenizer, decoder="tdt")


def test_transcribe_searches_with_a_beam(
  recognizer, waves, submodels, one_by_one
):
  """Each by his own Submodel, as a search of his logits says."""
  tokenizer = recognizer.stored.tokenizer
  wanted = SearchConfig(beam=4, length_bonus=0.7)
  asked = open_search(wanted, tokenizer, decoder="ctc")
  texts = recognizer.transcribe(waves, submodels, search=asked)
  expected = []
  for logits_TV in map(jnp.asarray, one_by_one):
    found = search(
      CtcScorer(logits_TV=logits_TV, length=jnp.array(len(logits_TV))),
      labels=len(logits_TV),
      beam=4,
      weights=Weights(length=0.7),
    )
    labels_U = found.labels_WU[0, : int(found.length_W[0])]
    expected.append(tokenizer.decode(labels_U.tolist()))
  assert texts == expected
  assert texts != recognizer.transcribe(waves, submodels)
