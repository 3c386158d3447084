"""N-grams in the search against a plain evaluation of their file."""

import gzip
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentences

from hra.data import arpa
from hra.decoders import beam, ngram
from hra.decoders.scorers import CtcScorer
from hra.errors import InputError

LABELS = ("<blank>", "a", "▁b", "c", "d")
"""What is in no file: d."""
WORDS = ("a", "▁b", "c")


def _written(grams):
  """{words: (log10, backoff or None)} as an ARPA file."""
  order = max(map(len, grams))
  by_size = [[g for g in grams if len(g) == n + 1] for n in range(order)]
  lines = ["\\data\\"]
  lines += [f"ngram {n}={len(each)}" for n, each in enumerate(by_size, 1)]
  for n, each in enumerate(by_size, 1):
    lines += ["", f"\\{n}-grams:"]
    for gram in each:
      log, backoff = grams[gram]
      end = "" if backoff is None else f"\t{backoff:.6f}"
      lines.append(f"{log:.6f}\t{' '.join(gram)}{end}")
  return "\n".join([*lines, "", "\\end\\", ""])


def _grams(seed=0, order=3, unknown=-2.5):
  """Some of those that may be, each with what it begins with."""
  rng = np.random.default_rng(seed)

  def number(low):
    return round(rng.uniform(low, -0.1), 6)

  grams = {("<s>",): (0.0, number(-1)), ("</s>",): (number(-2), None)}
  if unknown is not None:
    grams[("<unk>",)] = (unknown, None)
  grams |= {(word,): (number(-2), number(-1)) for word in WORDS}
  contexts = [("<s>",), *((word,) for word in WORDS)]
  for size in range(2, order + 1):
    last = size == order
    found = [
      (*context, word)
      for context in contexts
      for word in (*WORDS, "</s>")
      if rng.uniform() < 0.5
    ]
    grams |= {
      gram: (number(-2), None if last or gram[-1] == "</s>" else number(-1))
      for gram in found
    }
    contexts = [gram for gram in found if gram[-1] != "</s>"]
  if order == 1:
    return {gram: (log, None) for gram, (log, _) in grams.items()}
  return grams


def _log(grams, context, word, order):
  """log10 P(word | context), as the file is read by eye."""
  context = context[-(order - 1) :] if order > 1 else ()
  if (*context, word) in grams:
    return grams[(*context, word)][0]
  if not context:
    return grams.get(("<unk>",), (-100.0,))[0]
  backoff = grams.get(context, (0.0, 0.0))[1] or 0.0
  return backoff + _log(grams, context[1:], word, order)


def _expected(grams, sentence, order):
  """[P, V] in nats, of a sentence of ids."""
  said, rows = ("<s>",), []
  for label in (*sentence, None):
    names = ("</s>", *LABELS[1:])
    rows.append([_log(grams, said, name, order) for name in names])
    said = (*said, LABELS[label]) if label is not None else said
  return np.array(rows) * math.log(10)


@jax.jit
def _asked(model, labels_BU):
  """[B, P, V] by the search's way of asking."""

  def one(labels_U):
    labels_P = jnp.pad(labels_U, (1, 0))
    return jax.lax.scan(model.advance, model.start(), labels_P)[1]

  return jax.vmap(one)(labels_BU)


def _file(folder, grams, name="lm.arpa"):
  path = folder / name
  path.write_text(_written(grams))
  return path


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_label_after_every_sentence(tmp_path, order):
  every = np.array([*itertools.product(range(1, len(LABELS)), repeat=4)])
  for seed, unknown in ((0, -2.5), (1, None)):
    grams = _grams(seed, order, unknown)
    model = ngram.read(_file(tmp_path, grams), LABELS)
    found = _asked(model, every)
    assert found.dtype == jnp.float32
    for log_PV, sentence in zip(np.asarray(found), every, strict=True):
      expected = _expected(grams, sentence.tolist(), order)
      np.testing.assert_allclose(log_PV, expected, rtol=1e-5)


def test_ends_that_a_file_lacks_are_skipped(tmp_path):
  """After a b c nothing begins with b c, which weighs nothing."""
  grams = {
    ("<s>",): (0.0, -0.3),
    ("</s>",): (-1.0, None),
    **{(word,): (-0.5, -0.2) for word in WORDS},
    ("a", "▁b"): (-0.4, -0.25),
    ("a", "▁b", "c"): (-0.1, -0.15),
    ("a", "▁b", "c", "a"): (-0.05, None),
    ("c", "c"): (-0.7, None),
  }
  model = ngram.read(_file(tmp_path, grams), LABELS)
  sentence = [1, 2, 3, 3]
  found = _asked(model, np.array([sentence]))[0]
  np.testing.assert_allclose(found, _expected(grams, sentence, 4), rtol=1e-5)


def test_a_search_is_fused_with_it(float64, tmp_path):
  grams = _grams()
  model = ngram.read(_file(tmp_path, grams), LABELS[:4])
  logits = np.random.default_rng(0).standard_normal((4, 4))
  weights = beam.Weights(language_model=0.5)

  @jax.jit
  def search(model, logits_TV):
    return beam.search(
      CtcScorer(logits_TV=logits_TV, length=jnp.array(4)),
      labels=2,
      beam=16,
      weights=weights,
      language_model=model,
    )

  def spoken(sentence):
    log_PV = _expected(grams, sentence, 3)
    return sum(log_PV[np.arange(len(sentence) + 1), [*sentence, 0]])

  found = jax.device_get(search(model, logits))
  model_W = {
    tuple(y[:n].tolist()): float(log)
    for y, n, log in zip(
      found.labels_WU, found.length_W, found.model_W, strict=True
    )
    if log > -np.inf
  }
  assert set(model_W) == {*sentences.every(4, 2)}
  expected = sentences.ranked(model_W, language=spoken, weights=weights)
  # Probabilities are kept in float32.
  sentences.check(found, expected, rtol=1e-6)


def test_what_programs_write(tmp_path):
  """SRILM: a head, -99 for <s>, spaces; lmplz: back-offs after </s>, gzip."""
  text = (
    "a head\n\n\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n"
    "-99 <s> -0.5\n-1 </s>\t0\n-1.5\t<unk>\t0\n-0.25\ta\t-0.125\n\n"
    "\\2-grams:\n-0.75 <s> a\n\n\\end\\\n"
  )
  path = tmp_path / "lm.arpa.gz"
  path.write_bytes(gzip.compress(text.encode()))
  found = arpa.read(path, {"a": 1})
  unigrams, bigrams = found.orders
  assert unigrams == {(0,): (-1.0, -0.5), (1,): (-0.25, -0.125)}
  assert bigrams == {(0, 1): (-0.75, 0.0)}
  assert found.unknown == -1.5


GOOD = _written(_grams(order=2))


@pytest.mark.parametrize(
  ("old", "new", "line", "says"),
  [
    ("\\data\\", "data", 23, "\\data\\"),
    ("ngram 2=", "ngram 3=", 3, "ngram 2=COUNT"),
    ("ngram 1=6", "ngram 1=7", 13, "7 1-grams"),
    ("\\2-grams:", "\\3-grams:", 13, "\\2-grams:"),
    ("\\end\\\n", "", 22, "the end of the file"),
    ("-2.500000", "-2.5x", 8, "a number"),
    ("-2.500000", "nan", 8, "a number"),
    ("-2.500000", "2.5", 8, "at most 0"),
    ("<unk>", "word", 8, "labels of the tokenizer"),
    ("<unk>", "<unk> 0 0", 8, "LOG10 WORD [BACKOFF]"),
    ("<unk>", "a", 9, "each n-gram once"),
    ("a ▁b", "a <s>", 15, "<s> at the beginning"),
    ("a ▁b", "</s> a", 15, "</s> at the end"),
  ],
)
def test_bad_files_are_told_by_their_line(tmp_path, old, new, line, says):
  path = tmp_path / "lm.arpa"
  assert old in GOOD
  path.write_text(GOOD.replace(old, new, 1))
  with pytest.raises(InputError) as error:
    ngram.read(path, LABELS)
  assert str(error.value).startswith(f"{path}:{line}: ")
  assert says in str(error.value)


def test_bad_files_without_a_line(tmp_path):
  path = tmp_path / "lm.arpa"
  with pytest.raises(InputError, match="no such file"):
    ngram.read(path, LABELS)
  grams = _grams()
  lost = next(
    g
    for g in grams
    if len(g) == 2 and any(h[:2] == g for h in grams if len(h) == 3)
  )
  del grams[lost]
  with pytest.raises(InputError, match="incomplete"):
    ngram.read(_file(tmp_path, grams), LABELS)
  path.write_bytes(b"\\data\\\nngram 1=1\n\n\\1-grams:\n-1\t\xff\n")
  with pytest.raises(InputError, match=r"lm.arpa:5: expected UTF-8"):
    ngram.read(path, LABELS)
  packed = tmp_path / "lm.arpa.gz"
  for data in (b"\\data\\\n", gzip.compress(GOOD.encode())[:-12]):
    packed.write_bytes(data)
    with pytest.raises(InputError, match=r"lm.arpa.gz: expected an ARPA file"):
      ngram.read(packed, LABELS)
