"""An n-gram model with back-off (Katz 1987) over the recogniser's labels.

In: an ARPA file of n-grams of labels, as KenLM (Heafield et al. 2013) makes them of
text whose labels stand apart:

    python -c 'import sys; from hra.data.tokenizer import Tokenizer
    tokenizer = Tokenizer.load(sys.argv[1])
    for line in sys.stdin: print(*map(tokenizer.labels.__getitem__,
      tokenizer.encode(line)))' tokenizer.model < text.txt > labels.txt
    lmplz -o 6 --discount_fallback < labels.txt > labels.arpa

Out: a `hra.decoders.beam.LanguageModel` of flat arrays, asked inside of a compiled
search. Log-probabilities are natural ones.

    P(v | h) = p(h v) if h v is in the file, else backoff(h) P(v | h without its first)

A state is the longest end of what was said that the file knows as the beginning of
something: what precedes that doesn't matter. All V labels are told at once: from the
shortest context to the longest, each takes the probabilities so far times its
back-off, and puts those in place that it has itself.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from hra.data import arpa
from hra.decoders.interface import BLANK

_UNKNOWN = -100.0
"""log10 probability of labels that a file without <unk> lacks (as KenLM has it)."""


@functools.partial(
  jax.tree_util.register_dataclass,
  meta_fields=("order", "widest"),
  data_fields=(
    "log_V",
    "next_V",
    "backoff_G",
    "suffix_G",
    "first_G",
    "count_G",
    "label_X",
    "log_X",
    "next_X",
  ),
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class NGrams:
  """G contexts, of which 0 is the empty one, and X n-grams of 2 labels or more.

  Those that begin with the same context stand together.
  """

  order: int
  widest: int
  """The most n-grams that one context begins."""
  log_V: np.ndarray
  """Of labels by themselves."""
  next_V: np.ndarray
  """The context after each, where nothing was before it."""
  backoff_G: np.ndarray
  suffix_G: np.ndarray
  """The context without its first label, or its longest end that is one."""
  first_G: np.ndarray
  """Where its n-grams begin in X."""
  count_G: np.ndarray
  label_X: np.ndarray
  """The last label."""
  log_X: np.ndarray
  next_X: np.ndarray
  """The context after it."""

  def start(self) -> jax.Array:
    """[V]: the context after each label; 0 has that of a sentence's beginning."""
    return jnp.zeros_like(self.next_V).at[BLANK].set(self.next_V[BLANK])

  def advance(
    self, state: jax.Array, label: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """(contexts after each next label [V], their log-probabilities [V])."""
    contexts = [state[label]]
    for _ in range(self.order - 2):
      contexts.append(jnp.asarray(self.suffix_G)[contexts[-1]])
    exact = jnp.result_type(float)
    log_V, next_V = jnp.asarray(self.log_V, exact), jnp.asarray(self.next_V)
    for context in reversed(contexts):
      log_V, next_V = self._told_by(context, log_V, next_V)
    return next_V, log_V

  def _told_by(
    self, context: jax.Array, log_V: jax.Array, next_V: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """What a context says, given what the next shorter one says."""
    index = jnp.arange(self.widest)
    place = jnp.asarray(self.first_G)[context] + index
    there = index < jnp.asarray(self.count_G)[context]
    label = jnp.where(there, jnp.asarray(self.label_X)[place], len(log_V))
    log_V += jnp.asarray(self.backoff_G)[context]
    log = jnp.asarray(self.log_X, log_V.dtype)[place]
    return (
      log_V.at[label].set(log, mode="drop"),
      next_V.at[label].set(jnp.asarray(self.next_X)[place], mode="drop"),
    )


def read(path: epath.PathLike, labels: Sequence[str]) -> NGrams:
  """The n-grams of an ARPA file, plain or `.gz`.

  Args:
    labels: names by id, as `Tokenizer.labels`; id 0 stands for sentences' ends,
      and `<unk>`, where it is one, for itself.

  Raises:
    InputError: `file:line` of what is no ARPA file, or not of these labels.
  """
  ids = {name: id for id, name in enumerate(labels) if id != BLANK}
  return build(arpa.read(path, ids), vocabulary=len(labels))


def build(given: arpa.Arpa, *, vocabulary: int) -> NGrams:
  """The arrays of a file's n-grams."""
  unigrams, *longer = given.orders
  contexts: list[arpa.Gram] = [()]
  for grams in given.orders[:-1]:
    contexts += sorted(grams)
  place = {context: index for index, context in enumerate(contexts)}
  entries = given.orders[0].copy()
  for grams in longer:
    entries |= grams
  followers = sorted(
    (place[gram[:-1]], gram) for gram in entries if len(gram) > 1
  )
  beginning = np.array([context for context, _ in followers], np.int32)
  count_G = np.bincount(beginning, minlength=len(contexts)).astype(np.int32)
  unknown = _UNKNOWN if given.unknown is None else given.unknown
  log_V = np.full(vocabulary, unknown)
  next_V = np.zeros(vocabulary, np.int32)
  for (label,), entry in unigrams.items():
    log_V[label], next_V[label] = entry.log, place.get((label,), 0)
  return NGrams(
    order=len(given.orders),
    widest=int(count_G.max()),
    log_V=_natural(log_V),
    next_V=next_V,
    backoff_G=_natural([0, *(entries[gram].backoff for gram in contexts[1:])]),
    suffix_G=_suffixes(place, contexts),
    first_G=(np.cumsum(count_G) - count_G).astype(np.int32),
    count_G=count_G,
    label_X=np.array([gram[-1] for _, gram in followers] or [0], np.int32),
    log_X=_natural([entries[gram].log for _, gram in followers] or [0]),
    next_X=_afterwards(place, [gram for _, gram in followers] or [()]),
  )


def _natural(log10: Sequence[float] | np.ndarray) -> np.ndarray:
  return (np.asarray(log10) * math.log(10)).astype(np.float32)


def _suffixes(
  place: Mapping[arpa.Gram, int], contexts: list[arpa.Gram]
) -> np.ndarray:
  """Of each context, the longest of its ends that is another."""
  return _afterwards(place, [context[1:] for context in contexts])


def _afterwards(
  place: Mapping[arpa.Gram, int], grams: list[arpa.Gram]
) -> np.ndarray:
  """The longest end of each that is a context."""
  found = []
  for gram in grams:
    while gram not in place:
      gram = gram[1:]
    found.append(place[gram])
  return np.array(found, np.int32)
