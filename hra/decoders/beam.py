"""One beam search for CTC, transducers and attention decoders, of one utterance.

In: a scorer (`hra.decoders.scorers`), and where there is one a language model. Out:
the W likeliest label sequences. All of it is traced; callers `vmap` over utterances.

W hypotheses with different labels go through the steps of a scorer together. In each,
a hypothesis stays as it is (a blank), gets one more label, or ends. Ways to the same
labels are one hypothesis, whose probabilities are added: what gets a label may be what
another hypothesis is already, and nothing else coincides, since hypotheses differ.
Those that end leave the beam, and the best W of them are the answer.

With y the labels, P the scorer and P_LM the language model, a sentence's total is

    (log P(y) + a log P_LM(y)) / ((5 + |y|) / 6)^n + b |y| + c coverage(y)

a: shallow fusion (Gulcehre et al. 2015). n: Wu et al. 2016, section 7; of what ends
only, as all on the beam of an attention decoder have the same length. b: a bonus for each
label, as Hannun et al. 2014 (arXiv 1412.5567) for each word. c: Chorowski and Jaitly 2017.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from hra.decoders.interface import BLANK

Tree = Any


class Weights(NamedTuple):
  """Of a total's terms, traced: others need no other program."""

  language_model: float | jax.Array = 0.0
  """a, 0 at least."""
  length: float | jax.Array = 0.0
  """b, in nats for each label."""
  coverage: float | jax.Array = 0.0
  """c, in nats for each frame that was attended to."""
  normalization: float | jax.Array = 0.0
  """n; 0 compares sentences of all lengths as they are."""


class Mass(NamedTuple):
  """Log-probability of a hypothesis so far, by what came last."""

  blank: jax.Array
  label: jax.Array

  @property
  def total(self) -> jax.Array:
    return jnp.logaddexp(self.blank, self.label)


class Prefix(NamedTuple):
  """What the search knows of a hypothesis and a scorer may ask for."""

  last: jax.Array
  """Its last label; 0 where there is none."""
  length: jax.Array
  """Labels."""
  mass: Mass


class Scores(NamedTuple):
  """Log-probabilities of a hypothesis after one more step: its mass is in them."""

  stay: Mass
  """With the labels that it has."""
  extend_V: jax.Array
  """With each label behind them; -inf for what is no label."""
  finish: jax.Array
  """As a sentence that ends here."""
  coverage: jax.Array
  """Frames attended to, up to this step."""


class Scorer(Protocol):
  """Of one utterance. All but `steps` is traced, of one hypothesis."""

  @property
  def most_coverage(self) -> jax.Array | float:
    """That a hypothesis may reach."""
    ...

  def steps(self, labels: int) -> int:
    """After which every sentence of that many labels has ended."""
    ...

  def start(self) -> Tree:
    """The state before any label."""
    ...

  def score(self, state: Tree, prefix: Prefix, step: jax.Array) -> Scores:
    """What may become of a hypothesis in this step."""
    ...

  def advance(self, state: Tree, label: jax.Array) -> Tree:
    """The state after one more label; who stays keeps its state."""
    ...


class LanguageModel(Protocol):
  """Log P(label | labels before it); label 0 begins a sentence and ends it."""

  def start(self) -> Tree:
    """The state before label 0, the first to advance by."""
    ...

  def advance(self, state: Tree, label: jax.Array) -> tuple[Tree, jax.Array]:
    """(the state after a label, log-probabilities [V] of what comes next)."""
    ...


class Hypotheses(NamedTuple):
  """The likeliest sentences, best first; a total of -inf where there are fewer."""

  labels_WU: jax.Array
  """0 beyond the length."""
  length_W: jax.Array
  total_W: jax.Array
  """What they are sorted by; the terms below are without their weights."""
  model_W: jax.Array
  """Log-probability by the scorer."""
  language_W: jax.Array
  """By the language model, the sentence's end included; 0 without one."""
  coverage_W: jax.Array


class _Active(NamedTuple):
  """Hypotheses that have not ended; a mass of -inf where there are fewer."""

  labels_WU: jax.Array
  prefix: Prefix
  """[W] each."""
  language_W: jax.Array
  state: Tree
  memory: Tree
  """Of the language model; () without one."""
  next_WV: jax.Array
  """Log-probabilities by the language model of what comes next; zeros without."""


def search(
  scorer: Scorer,
  *,
  labels: int,
  beam: int,
  weights: Weights | None = None,
  language_model: LanguageModel | None = None,
) -> Hypotheses:
  """The best sentences of up to U = `labels` labels, by a beam of W = `beam`.

  Without pruning, that is with W as large as the sentences are many, totals are
  exact. Ends as soon as nothing on the beam can still be among the W best, which
  costs nothing in accuracy. What is not a number is as if it were impossible.
  """
  weights = weights or Weights()
  steps = scorer.steps(labels)
  active, done = _start(scorer, language_model, labels=labels, beam=beam)

  def goes_on(carried: tuple[jax.Array, _Active, Hypotheses]) -> jax.Array:
    step, active, done = carried
    most = _most(active, scorer.most_coverage, weights, labels=labels)
    return (step < steps) & (most > done.total_W[-1])

  def body(
    carried: tuple[jax.Array, _Active, Hypotheses],
  ) -> tuple[jax.Array, _Active, Hypotheses]:
    step, active, done = carried
    score = jax.vmap(scorer.score, (0, 0, None))
    scores = score(active.state, active.prefix, step)
    exact = active.language_W.dtype
    scores = jax.tree.map(lambda leaf: leaf.astype(exact), scores)
    done = _with_finished(done, active, scores, weights)
    active = _advanced(active, scores, scorer, language_model, weights)
    return step + 1, active, done

  _, _, done = jax.lax.while_loop(goes_on, body, (jnp.array(0), active, done))
  return done


def _start(
  scorer: Scorer,
  language_model: LanguageModel | None,
  *,
  labels: int,
  beam: int,
) -> tuple[_Active, Hypotheses]:
  """One hypothesis, without labels; nothing has ended."""
  exact = jnp.result_type(float)
  none_W = jnp.full(beam, -jnp.inf, exact)
  zero_W, length_W = jnp.zeros(beam, exact), jnp.zeros(beam, jnp.int32)
  labels_WU = jnp.zeros((beam, labels), jnp.int32)
  prefix = Prefix(length_W, length_W, Mass(none_W.at[0].set(0), none_W))

  def repeated(tree: Tree) -> Tree:
    return jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (beam, *jnp.shape(leaf))), tree
    )

  state = repeated(scorer.start())
  if language_model is None:
    score = jax.vmap(scorer.score, (0, 0, None))
    shapes = jax.eval_shape(score, state, prefix, jnp.array(0))
    memory, next_WV = (), jnp.zeros(shapes.extend_V.shape, exact)
  else:
    begun = language_model.advance(language_model.start(), jnp.array(BLANK))
    memory, next_WV = repeated(begun)
    next_WV = next_WV.astype(exact)
  active = _Active(labels_WU, prefix, zero_W, state, memory, next_WV)
  return active, Hypotheses(labels_WU, length_W, none_W, none_W, zero_W, zero_W)


def _with_finished(
  done: Hypotheses, active: _Active, scores: Scores, weights: Weights
) -> Hypotheses:
  """The best W of those that had ended and those that end in this step."""
  length_W = active.prefix.length
  language_W = active.language_W + active.next_WV[:, BLANK]
  fused_W = scores.finish + _weighed(weights.language_model, language_W)
  total_W = _possible(
    fused_W / _normalizer(weights, length_W)
    + _weighed(weights.length, length_W)
    + _weighed(weights.coverage, scores.coverage)
  )
  ended = Hypotheses(
    active.labels_WU,
    length_W,
    total_W,
    scores.finish,
    language_W,
    scores.coverage,
  )
  # What can't end is nothing: no labels, and nothing that is not a number.
  nothing = done._replace(
    labels_WU=jnp.zeros_like(done.labels_WU),
    length_W=jnp.zeros_like(length_W),
    total_W=jnp.full_like(total_W, -jnp.inf),
    model_W=jnp.full_like(total_W, -jnp.inf),
    language_W=jnp.zeros_like(total_W),
    coverage_W=jnp.zeros_like(total_W),
  )
  ended = _select(total_W > -jnp.inf, ended, nothing)
  both = jax.tree.map(lambda *each: jnp.concatenate(each), done, ended)
  _, best_W = jax.lax.top_k(both.total_W, len(total_W))
  return jax.tree.map(lambda leaf: leaf[best_W], both)


class _Choice(NamedTuple):
  """The best W of all that stay as they are and all that get a label."""

  parent_W: jax.Array
  stays_W: jax.Array
  label_W: jax.Array
  """Of those that get one."""
  possible_W: jax.Array
  """False where there are fewer."""


def _advanced(
  active: _Active,
  scores: Scores,
  scorer: Scorer,
  language_model: LanguageModel | None,
  weights: Weights,
) -> _Active:
  """The hypotheses on the beam after one more step."""
  stay, extend_WV = _merged(active, scores)
  spoken_WV = active.language_W[:, None] + active.next_WV
  choice = _chosen(active, stay, extend_WV, spoken_WV, scores.coverage, weights)
  parent_W, stays_W, label_W, possible_W = choice
  before = _rows(active, parent_W)
  beam, labels = active.labels_WU.shape
  place_W = jnp.where(stays_W, labels, before.prefix.length)
  labels_WU = before.labels_WU.at[jnp.arange(beam), place_W].set(
    label_W, mode="drop"
  )
  none_W = jnp.full_like(stay.label, -jnp.inf)
  extended = Mass(none_W, extend_WV[parent_W, label_W])
  mass = _select(stays_W, _rows(stay, parent_W), extended)
  prefix = Prefix(
    jnp.where(stays_W, before.prefix.last, label_W),
    before.prefix.length + ~stays_W,
    _select(possible_W, mass, Mass(none_W, none_W)),
  )
  spoken_W = spoken_WV[parent_W, label_W]
  language_W = jnp.where(stays_W, before.language_W, spoken_W)
  state = jax.vmap(scorer.advance)(before.state, label_W)
  language = before.memory, before.next_WV
  if language_model is not None:
    heard = jax.vmap(language_model.advance)(before.memory, label_W)
    language = _select(stays_W, language, heard)
  return _Active(
    labels_WU,
    prefix,
    jnp.where(possible_W, language_W, 0),
    _select(stays_W, before.state, state),
    *language,
  )


def _chosen(
  active: _Active,
  stay: Mass,
  extend_WV: jax.Array,
  spoken_WV: jax.Array,
  coverage_W: jax.Array,
  weights: Weights,
) -> _Choice:
  """By total; a hypothesis of U labels gets no other."""
  beam, vocabulary = extend_WV.shape
  length_W = active.prefix.length
  room_W = length_W < active.labels_WU.shape[1]
  stay_W = stay.total + _weighed(weights.language_model, active.language_W)
  stay_W += _weighed(weights.length, length_W)
  label_WV = extend_WV + _weighed(weights.language_model, spoken_WV)
  label_WV += _weighed(weights.length, length_W + 1)[:, None]
  label_WV = jnp.where(room_W[:, None], label_WV, -jnp.inf)
  total_WV = jnp.concatenate([stay_W[:, None], label_WV], axis=1)
  total_WV += _weighed(weights.coverage, coverage_W)[:, None]
  total_W, chosen_W = jax.lax.top_k(_possible(total_WV).ravel(), beam)
  parent_W, next_W = jnp.divmod(chosen_W, vocabulary + 1)
  stays_W = next_W == 0
  label_W = jnp.where(stays_W, BLANK, next_W - 1)
  return _Choice(parent_W, stays_W, label_W, total_W > -jnp.inf)


def _merged(active: _Active, scores: Scores) -> tuple[Mass, jax.Array]:
  """Masses (who stays, each label behind each), those of equal labels as one.

  Where v with a label behind it is w, its mass goes there. Labels are compared
  one by one: no hash, no collision.
  """
  labels_WU, (last_W, length_W, mass) = active.labels_WU, active.prefix
  beam = len(last_W)
  is_last_WU = jnp.arange(labels_WU.shape[1]) == length_W[:, None] - 1
  without_last_WU = jnp.where(is_last_WU, 0, labels_WU)
  # [w, v]: w is v and one label.
  follows_WW = (without_last_WU[:, None] == labels_WU).all(-1)
  follows_WW &= length_W[:, None] == length_W + 1
  follows_WW &= (mass.total > -jnp.inf)[:, None]
  coming_WW = scores.extend_V[:, last_W].T
  coming_W = jnp.where(follows_WW, coming_WW, -jnp.inf).max(1)
  before_W = jnp.where(follows_WW.any(1), follows_WW.argmax(1), beam)
  extend_WV = scores.extend_V.at[before_W, last_W].set(-jnp.inf, mode="drop")
  label_W = jnp.logaddexp(scores.stay.label, coming_W)
  return scores.stay._replace(label=label_W), extend_WV


def _most(
  active: _Active,
  coverage: jax.Array | float,
  weights: Weights,
  *,
  labels: int,
) -> jax.Array:
  """No sentence that a hypothesis on the beam begins has a larger total.

  A sentence's probability is a part of those of its beginnings.
  """
  prefix = active.prefix
  language_W = _weighed(weights.language_model, active.language_W)
  fused_W = prefix.mass.total + language_W
  ends = jnp.array([0, labels])
  fused = jax.nn.logsumexp(fused_W) / _normalizer(weights, ends)
  longest_W = jnp.where(weights.length > 0, labels, prefix.length)
  bonus_W = _weighed(weights.length, longest_W)
  bonus = jnp.where(fused_W > -jnp.inf, bonus_W, -jnp.inf).max()
  covered = jnp.maximum(_weighed(weights.coverage, coverage), 0)
  return fused.max() + bonus + covered


def _normalizer(weights: Weights, length: jax.Array) -> jax.Array:
  exact = length.astype(jnp.result_type(float))
  return ((5 + exact) / 6) ** weights.normalization


def _weighed(weight: float | jax.Array, x: jax.Array | float) -> jax.Array:
  """weight x, and 0 of what has no weight, be it -inf."""
  return jnp.where(weight == 0, 0, weight * x)


def _possible(total: jax.Array) -> jax.Array:
  return jnp.where(jnp.isnan(total), -jnp.inf, total)


def _rows(tree: Tree, index_W: jax.Array) -> Tree:
  return jax.tree.map(lambda leaf: leaf[index_W], tree)


def _select(which_W: jax.Array, chosen: Tree, other: Tree) -> Tree:
  """Leaves [W, ...] of one tree or the other."""

  def select(one: jax.Array, two: jax.Array) -> jax.Array:
    return jnp.where(which_W.reshape(-1, *[1] * (one.ndim - 1)), one, two)

  return jax.tree.map(select, chosen, other)
