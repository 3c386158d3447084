"""The promises of the training step, on a model of two layers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from hra.config import AdapterConfig
from hra.features import specaugment
from hra.train import gradients, state
from hra.train import step as train_step
from hra.train.optimizer import updates_done
from hra.train.step import make_step

BOTH = AdapterConfig(width=8, heads="both")


def _jitted(model, space, optimizers, *, terms):
  step = make_step(model, space, optimizers, policy=None)
  return functools.partial(jax.jit(step), terms=terms)


def _setup(
  adapter=tiny.ADAPTER, *, space=tiny.TABLE, names=tiny.NAMES, **terms
):
  optimizers = tiny.optimizers()
  step = _jitted(
    tiny.model(adapter),
    tiny.space(adapter, space),
    optimizers,
    terms=tiny.terms(**terms),
  )
  fresh = state.init(
    tiny.space(adapter, space), optimizers, names, key=jax.random.key(2)
  )
  return step, fresh


@pytest.fixture(scope="module")
def trained():
  """A step function and a state in which every task moved once."""
  step, fresh = _setup()
  backbone = tiny.backbone()
  after, _ = step(fresh, backbone, tiny.batch(tiny.NAMES[:4]))
  after, _ = step(after, backbone, tiny.batch(tiny.NAMES[2:]))
  return step, after, backbone


def _exact(tree):
  """The same in float64."""
  return jax.tree.map(
    lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, tree
  )


def _row(tree, place):
  return jax.tree.map(lambda leaf: np.asarray(leaf[place]), tree)


def _assert_same(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def _differs(first, second) -> bool:
  pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
  return any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)


def test_rows_absent_from_a_batch_do_not_move(trained):
  step, before, backbone = trained
  after, _ = step(before, backbone, tiny.batch(("bert", "dora"), places=4))
  for place, name in enumerate(tiny.NAMES):
    rows = [_row(s.rows, place) for s in (before, after)]
    moments = [_row(s.rows_optimizer, place) for s in (before, after)]
    if name in ("bert", "dora"):
      assert _differs(*rows)
      assert _differs(*moments)
    else:
      _assert_same(*rows)
      _assert_same(*moments)


def test_frozen_backbone_is_untouched(trained):
  step, before, backbone = trained
  copies = [np.array(leaf) for leaf in jax.tree.leaves(backbone)]
  step(before, backbone, tiny.batch(tiny.NAMES[:4]))
  _assert_same(copies, jax.tree.leaves(backbone))


def test_place_in_the_batch_does_not_matter(trained):
  step, before, backbone = trained
  names = tiny.NAMES[:4]
  forward, _ = step(before, backbone, tiny.batch(names))
  backward, _ = step(before, backbone, tiny.batch(names[::-1]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    forward.rows,
    backward.rows,
  )


def _poison_audio(before, batch):
  batch.wave_KBS[1, 0, 500] = np.nan
  return before, batch


def _poison_row(before, batch):
  rows = jax.tree.map(
    lambda leaf: leaf.at[batch.task_K[1]].set(jnp.nan), before.rows
  )
  return before._replace(rows=rows), batch


def _poison_loss(before, batch):
  # Finite audio, finite row, and a forward pass that overflows.
  rows = jax.tree.map(
    lambda leaf: leaf.at[batch.task_K[1]].set(3e38), before.rows
  )
  return before._replace(rows=rows), batch


@pytest.mark.parametrize("poison", [_poison_audio, _poison_row, _poison_loss])
def test_a_task_that_is_not_finite_is_as_if_absent(trained, poison):
  step, before, backbone = trained
  names = tiny.NAMES[:4]
  others = tuple(name for name in names if name != names[1])
  bad, metrics = step(*_poisoned(poison, before, backbone, names))
  good, _ = step(before, backbone, tiny.batch(others, places=4))
  assert metrics.bad_K.tolist() == [False, True, False, False]
  assert np.isfinite(metrics.loss_K).all()
  assert metrics.weight_K[1] == 0
  assert bad.skipped_N.tolist() == [0, 1, 0, 0, 0, 0]
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
  jax.tree.map(close, bad.shared, good.shared)
  for name in others:
    place = tiny.NAMES.index(name)
    jax.tree.map(close, _row(bad.rows, place), _row(good.rows, place))


def _poisoned(poison, before, backbone, names):
  before, batch = poison(before, tiny.batch(names))
  return before, backbone, batch


def test_poisoned_row_and_its_optimizer_are_left_as_they_were(trained):
  step, before, backbone = trained
  batch = tiny.batch(tiny.NAMES[:4])
  batch.wave_KBS[1, 0, 500] = np.nan
  after, _ = step(before, backbone, batch)
  _assert_same(_row(before.rows, 1), _row(after.rows, 1))
  _assert_same(_row(before.rows_optimizer, 1), _row(after.rows_optimizer, 1))


def test_a_batch_without_any_good_task_changes_nothing(trained):
  step, before, backbone = trained
  batch = tiny.batch(tiny.NAMES[:4])
  batch.wave_KBS[:, 0, 500] = np.nan
  after, metrics = step(before, backbone, batch)
  assert metrics.bad_K.all()
  _assert_same(before.shared, after.shared)
  _assert_same(before.shared_optimizer, after.shared_optimizer)
  _assert_same(before.rows, after.rows)


def test_padding_changes_nothing_but_rounding(trained):
  step, before, backbone = trained
  names = tiny.NAMES[:2]
  short, first = step(before, backbone, tiny.batch(names))
  wide, second = step(
    before, backbone, tiny.batch(names, places=4, samples=12_000)
  )
  np.testing.assert_allclose(first.loss_K, second.loss_K[:2], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    short.rows,
    wide.rows,
  )


@pytest.mark.parametrize("adapter", [tiny.ADAPTER, BOTH])
def test_joint_training_equals_training_alone(float64, adapter):
  """With shared parameters fixed, in float64, to 1e-9."""
  step, fresh = _setup(adapter, shared_rate=0.0)
  backbone = tiny.backbone(dtype="float64", param_dtype="float64")
  joint = _exact(fresh)
  for own_step in range(5):
    batch = tiny.batch(tiny.NAMES, own_step=own_step, dtype=np.float64)
    joint, _ = step(joint, backbone, batch)
  step_alone, alone = _setup(adapter, shared_rate=0.0, names=("cleo",))
  alone = _exact(alone)
  for own_step in range(5):
    batch = tiny.batch(
      ("cleo",), names=("cleo",), own_step=own_step, dtype=np.float64
    )
    alone, _ = step_alone(alone, backbone, batch)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[2], b[0], rtol=0, atol=1e-9),
    joint.rows,
    alone.rows,
  )
  moved = sum(np.abs(leaf[0]).sum() for leaf in jax.tree.leaves(alone.rows))
  assert moved > 0.01


def test_an_unbalanced_job_trains_each_row_as_alone(float64):
  """Unlike own steps, warm-ups cut short and weights: to 1e-9 in float64."""
  own_steps = {"anna": 1, "bert": 2, "cleo": 6, "dora": 3, "emil": 5, "fina": 4}
  weights = {"anna": 0.0, "bert": 9.0, "cleo": 0.3, "emil": 0.0}
  backbone = tiny.backbone(dtype="float64", param_dtype="float64")

  def trained(names, told):
    step, state = _setup(shared_rate=0.0, names=names)
    state = _exact(state)
    for own_step in range(max(own_steps[name] for name in names)):
      batch = tiny.batch(
        tuple(name for name in names if own_step < own_steps[name]),
        places=len(names),
        names=names,
        own_step=own_step,
        own_steps=own_steps,
        weights=told,
        rows=dataclasses.replace(tiny.OPTIMIZER, warmup_steps=3),
        dtype=np.float64,
      )
      state, _ = step(state, backbone, batch)
    return state

  joint = trained(tiny.NAMES, weights)
  assert updates_done(joint.rows_optimizer).tolist() == list(own_steps.values())
  for name in ("anna", "cleo", "dora"):
    alone = _row(trained((name,), {}).rows, 0)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9),
      _row(joint.rows, tiny.NAMES.index(name)),
      alone,
    )
    assert sum(np.abs(leaf).sum() for leaf in jax.tree.leaves(alone)) > 0.01


def test_own_steps_end_a_row_s_schedule_and_nobody_else_s(trained):
  step, before, backbone = trained
  names = tiny.NAMES[:4]
  long, _ = step(before, backbone, tiny.batch(names))
  short, _ = step(before, backbone, tiny.batch(names, own_steps={"bert": 2}))
  for name in names:
    place = tiny.NAMES.index(name)
    rows = (_row(long.rows, place), _row(short.rows, place))
    if name == "bert":
      assert _differs(*rows)
    else:
      _assert_same(*rows)


def test_a_task_of_weight_zero_trains_and_is_not_heard(trained):
  step, before, backbone = trained
  names = tiny.NAMES[:4]
  others = tuple(name for name in names if name != "bert")
  mute, _ = step(before, backbone, tiny.batch(names, weights={"bert": 0.0}))
  loud, _ = step(before, backbone, tiny.batch(names))
  absent, _ = step(before, backbone, tiny.batch(others, places=4))
  for mine, theirs in (
    (mute.shared, absent.shared),
    (mute.shared_optimizer, absent.shared_optimizer),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      mine,
      theirs,
    )
  assert _differs(loud.shared, mute.shared)
  _assert_same(loud.rows, mute.rows)  # weights never touch rows
  assert _differs(_row(mute.rows, 1), _row(before.rows, 1))


def test_where_nobody_is_heard_the_shared_parameters_wait(trained):
  step, before, backbone = trained
  batch = tiny.batch(
    ("bert", "dora"), places=4, weights=dict.fromkeys(("bert", "dora"), 0.0)
  )
  after, metrics = step(before, backbone, batch)
  _assert_same(before.shared, after.shared)
  _assert_same(before.shared_optimizer, after.shared_optimizer)
  assert _differs(_row(before.rows, 1), _row(after.rows, 1))
  assert metrics.shared_norm == 0
  assert (metrics.weight_K[:2] > 0).all()


def test_a_sum_that_is_not_finite_is_not_applied(trained):
  step, before, backbone = trained
  names = tiny.NAMES[:4]
  # Each task's gradient is finite; so many labels times that are not.
  huge = dict.fromkeys(names, 3e38)
  after, metrics = step(before, backbone, tiny.batch(names, weights=huge))
  _assert_same(before.shared, after.shared)
  _assert_same(before.shared_optimizer, after.shared_optimizer)
  assert (int(metrics.bad_K.sum()), int(metrics.shared_skipped)) == (0, 1)
  assert metrics.shared_norm == 0
  rows, _ = step(before, backbone, tiny.batch(names))
  _assert_same(rows.rows, after.rows)


def test_weights_only_count_relative_to_each_other(trained):
  step, before, backbone = trained
  names = tiny.NAMES[:4]
  tiny_weights = dict.fromkeys(names, 2.0**-20)
  equal, _ = step(before, backbone, tiny.batch(names))
  small, _ = step(before, backbone, tiny.batch(names, weights=tiny_weights))
  _assert_same(equal.shared, small.shared)


def test_shared_gradient_is_the_weighted_one(float64):
  """Against the formula, with every task's gradient taken by itself."""
  weights = {"anna": 0.25, "bert": 3.0, "cleo": 0.0, "dora": 1.0}
  kept = optax.GradientTransformationExtraArgs(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda gradient, state, params, settings: (
      jax.tree.map(jnp.zeros_like, gradient),
      gradient,
    ),
  )
  optimizers = tiny.optimizers()._replace(shared=kept)
  step = _jitted(tiny.model(), tiny.space(), optimizers, terms=tiny.terms())
  fresh = state.init(
    tiny.space(), optimizers, tiny.NAMES, key=jax.random.key(2)
  )
  key = jax.random.key(3)
  # Rows away from zero: a fresh head hides the controller from its gradient.
  fresh = fresh._replace(
    rows=jax.tree.map(
      lambda x: 0.1 * jax.random.normal(key, x.shape), fresh.rows
    )
  )
  fresh = _exact(fresh)
  backbone = tiny.backbone(dtype="float64", param_dtype="float64")

  def told(names, weights):
    batch = tiny.batch(names, places=4, weights=weights, dtype=np.float64)
    after, metrics = step(fresh, backbone, batch)
    return after.shared_optimizer, metrics.weight_K

  together, _ = told(tuple(weights), weights)
  total, labels = jax.tree.map(jnp.zeros_like, together), 0.0
  for name, weight in weights.items():
    mean, own = told((name,), {})
    own = weight * float(own[0])
    total = jax.tree.map(lambda a, b, own=own: a + own * b, total, mean)
    labels += own
  expected = jax.tree.map(lambda leaf: leaf / labels, total)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
    together,
    expected,
  )
  assert max(abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-3


def test_shared_only_has_empty_rows_and_learns():
  step, fresh = _setup(AdapterConfig(width=8, heads="shared"))
  assert fresh.rows == {}
  backbone = tiny.backbone()
  losses = []
  for _ in range(5):
    fresh, metrics = step(fresh, backbone, tiny.batch(tiny.NAMES[:4]))
    losses.append(float(metrics.loss_K.mean()))
  assert losses[-1] < losses[0]


@pytest.mark.parametrize("max_bad_steps", [1, 2])
def test_a_task_that_was_not_finite_is_quarantined(max_bad_steps, quarantine):
  """Its later batches are fine; it trains on after one bad step of two."""
  step, before, backbone = quarantine(max_bad_steps)
  names = tiny.NAMES[:4]
  batch = tiny.batch(names)
  batch.wave_KBS[1, 0, 500] = np.nan
  once, _ = step(before, backbone, batch)
  after, metrics = step(once, backbone, tiny.batch(names, own_step=1))
  others = tuple(name for name in names if name != names[1])
  kept = _row(once.rows, 1), _row(once.rows_optimizer, 1)
  now = _row(after.rows, 1), _row(after.rows_optimizer, 1)
  if max_bad_steps == 2:
    assert _differs(kept[0], now[0])
    assert metrics.weight_K[1] > 0
    batch = tiny.batch(names, own_step=2)
    batch.wave_KBS[1, 0, 500] = np.nan
    twice, metrics = step(after, backbone, batch)
    assert twice.skipped_N.tolist() == [0, 2, 0, 0, 0, 0]
    after, metrics = step(twice, backbone, tiny.batch(names, own_step=3))
    _assert_same(_row(twice.rows, 1), _row(after.rows, 1))
    assert metrics.weight_K[1] == 0
    return
  _assert_same(kept, now)
  assert metrics.weight_K[1] == 0
  assert not metrics.bad_K.any()
  assert after.skipped_N.tolist() == [0, 1, 0, 0, 0, 0]
  absent, _ = step(once, backbone, tiny.batch(others, places=4, own_step=1))
  _assert_close(after.shared, absent.shared)
  _assert_close(after.rows, absent.rows)


def test_a_gradient_whose_norm_is_not_finite_is_none():
  """As finite numbers, it would stop clipping and moments for good."""
  gradients = {
    "a": jnp.array([[1.0, 2.0], [1e25, 0.0], [jnp.nan, 0.0]]),
    "b": jnp.ones((3, 2, 2), jnp.bfloat16),
  }
  assert train_step._finite(gradients).tolist() == [True, False, False]
  assert train_step._finite({})


@pytest.fixture(scope="module")
def quarantine():
  """Own bad steps that a task may have -> a step, a state, a backbone."""

  def made(max_bad_steps):
    step, fresh = _setup(max_bad_steps=max_bad_steps)
    return step, fresh, tiny.backbone()

  return made


def test_a_task_that_stopped_stays_and_is_not_heard(trained):
  step, before, backbone = trained
  names = tiny.NAMES[:4]
  stopped = before._replace(
    progress=before.progress._replace(
      stopped_N=before.progress.stopped_N.at[1].set(True)
    )
  )
  after, metrics = step(stopped, backbone, tiny.batch(names))
  _assert_same(_row(stopped.rows, 1), _row(after.rows, 1))
  _assert_same(_row(stopped.rows_optimizer, 1), _row(after.rows_optimizer, 1))
  assert metrics.weight_K.astype(bool).tolist() == [True, False, True, True]
  others = tuple(name for name in names if name != names[1])
  absent, _ = step(before, backbone, tiny.batch(others, places=4))
  _assert_close(after.shared, absent.shared)
  _assert_close(after.rows, absent.rows)
  loud, _ = step(before, backbone, tiny.batch(names))
  assert _differs(loud.shared, after.shared)


def _assert_close(first, second, *, rtol=1e-4, atol=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    first,
    second,
  )


def _poison_embedding(before, batch):
  rows = jax.tree.map(
    lambda leaf: leaf.at[batch.task_K[1]].set(3e38), before.rows
  )
  return before._replace(rows=rows), batch


@pytest.mark.parametrize("poison", [_poison_audio, _poison_embedding])
def test_a_generator_does_not_hear_who_is_not_finite(poison):
  """An embedding of 3e38 is finite; the row that is made of it is not."""
  step, before = _setup(space=tiny.EMBEDDING)
  backbone = tiny.backbone()
  for own_step in range(2):  # until the generator's rows move with embeddings
    before, _ = step(
      before, backbone, tiny.batch(tiny.NAMES[:4], own_step=own_step)
    )
  names = tiny.NAMES[:4]
  others = tuple(name for name in names if name != names[1])
  poisoned, batch = poison(before, tiny.batch(names, own_step=2))
  bad, metrics = step(poisoned, backbone, batch)
  good, _ = step(before, backbone, tiny.batch(others, places=4, own_step=2))
  assert metrics.bad_K.tolist() == [False, True, False, False]
  _assert_close(bad.shared, good.shared)
  _assert_close(bad.shared_optimizer, good.shared_optimizer)
  _assert_same(_row(poisoned.rows, 1), _row(bad.rows, 1))
  _assert_same(_row(poisoned.rows_optimizer, 1), _row(bad.rows_optimizer, 1))
  for name in others:
    place = tiny.NAMES.index(name)
    _assert_close(_row(bad.rows, place), _row(good.rows, place))
  assert _differs(before.shared["space"], good.shared["space"])


MIXES = (
  ("anna", "bert", "cleo"),
  ("cleo", "fina", "emil", "dora", "bert", "anna"),
  ("emil", "cleo"),
)
"""The tasks of each own step: who shares a batch, in which order."""
FAMILIES = {
  "hra": AdapterConfig(width=8),
  "hra_gru": AdapterConfig(
    width=8, controller="gru", controllers="per_layer", heads="both"
  ),
  "hra_wide": AdapterConfig(width=8, head="feed_forward", head_width=4),
  "residual": AdapterConfig(family="residual", width=4, norm="per_task"),
  "lora": AdapterConfig(family="lora", width=2),
  "bitfit": AdapterConfig(family="bitfit"),
  "full": AdapterConfig(family="full"),
}


@pytest.mark.parametrize(
  ("family", "space", "places"),
  [
    ("residual", tiny.TABLE, (6, 6, 6)),
    ("hra_gru", tiny.EMBEDDING, (6, 6, 6)),
    *(
      pytest.param(family, space, (3, 6, 5), marks=pytest.mark.slow)
      for family in FAMILIES
      for space in (tiny.TABLE, tiny.EMBEDDING, tiny.OFFSET)
      if family != "full" or space is tiny.TABLE
    ),
  ],
)
def test_who_shares_a_batch_changes_nothing(float64, family, space, places):
  """Joint equals alone in float64, whichever tasks, places, order and K."""
  adapter = FAMILIES[family]
  types = {"dtype": "float64", "param_dtype": "float64"}
  optimizers, backbone = tiny.optimizers(), tiny.backbone(**types)
  step = _jitted(
    tiny.model(adapter, **types),
    tiny.space(adapter, space, **types),
    optimizers,
    terms=tiny.terms()._replace(shared=None),
  )
  fresh = state.init(
    tiny.space(adapter, space, **types),
    optimizers,
    tiny.NAMES,
    key=jax.random.key(2),
  )
  # Away from the start, where much of a generator is zero.
  fresh = fresh._replace(
    shared=jax.tree.map(
      lambda leaf: (
        leaf + 0.05 * jax.random.normal(jax.random.key(3), leaf.shape)
      ),
      fresh.shared,
    )
  )

  def trained(mixes):
    after = fresh
    for own_step, names in enumerate(mixes):
      batch = tiny.batch(
        names, places=places[own_step], own_step=own_step, dtype=np.float64
      )
      after, _ = step(after, backbone, batch)
    return after

  joint = trained(MIXES)
  alone = trained([("cleo",)] * len(MIXES))
  place = tiny.NAMES.index("cleo")
  _assert_close(
    _row((joint.rows, joint.rows_optimizer), place),
    _row((alone.rows, alone.rows_optimizer), place),
    rtol=1e-9,
    atol=1e-11,
  )
  assert updates_done(alone.rows_optimizer)[place] == len(MIXES)
  assert _differs(_row(fresh.rows, place), _row(alone.rows, place))
  _assert_same(joint.shared, fresh.shared)


def test_augmentation_starts_at_a_tasks_own_step():
  """And not at the job's: each task warms up by itself."""
  config = specaugment.preset("LB")
  late = dataclasses.replace(config, warp=0, freq_width=9, start=3)
  space, optimizers = tiny.space(), tiny.optimizers()
  fresh = state.init(space, optimizers, tiny.NAMES, key=jax.random.key(2))
  batch = tiny.batch(tiny.NAMES[:2])
  batch = batch._replace(own_step_K=np.array([2, 3], np.int32))
  losses = {}
  for name, policy in (("raw", None), ("late", specaugment.chosen(late))):
    step = jax.jit(make_step(tiny.model(), space, optimizers, policy=policy))
    _, metrics = step(fresh, tiny.backbone(), batch, tiny.terms())
    losses[name] = np.asarray(metrics.loss_K)
  assert losses["late"][0] == pytest.approx(losses["raw"][0], rel=1e-6)
  assert abs(losses["late"][1] - losses["raw"][1]) > 1e-3


def _flagged(batch, *flags):
  return batch._replace(augment_KB=np.broadcast_to(flags, (2, 2)))


def test_an_utterance_is_augmented_or_noise_perturbed_and_never_both():
  """One program for whatever flags; losses add up over a task's utterances."""
  policy = specaugment.chosen(
    dataclasses.replace(specaugment.preset("LD"), freq_width=9, warp=4)
  )
  space, optimizers = tiny.space(), tiny.optimizers()
  fresh = state.init(space, optimizers, tiny.NAMES, key=jax.random.key(2))
  batch = tiny.batch(tiny.NAMES[:2])
  traces = []

  def counted(*args):
    traces.append(args)
    return make_step(tiny.model(), space, optimizers, policy=policy)(*args)

  step = jax.jit(counted)

  def total_K(*flags):
    _, metrics = step(
      fresh, tiny.backbone(), _flagged(batch, *flags), tiny.terms()
    )
    return np.asarray(metrics.loss_K * metrics.weight_K)

  neither, first, second, both = (
    total_K(a, b) for a in (False, True) for b in (False, True)
  )
  raw = jax.jit(make_step(tiny.model(), space, optimizers, policy=None))
  _, metrics = raw(fresh, tiny.backbone(), batch, tiny.terms())
  raw_K = np.asarray(metrics.loss_K * metrics.weight_K)
  np.testing.assert_allclose(neither, raw_K, rtol=1e-5)
  np.testing.assert_allclose(first + second, neither + both, rtol=1e-5)
  for augmented in (first, second):
    assert (np.abs(augmented - neither) > 1e-3).all()
  assert len(traces) == 1


def test_features_of_what_is_noise_perturbed_stay_as_they_are():
  """Each by its own flag, and what it draws by its place, not by others' flags."""
  policy = specaugment.make_policy(
    dataclasses.replace(specaugment.preset("LD"), freq_width=9)
  )
  batch = tiny.batch(tiny.NAMES[:1], utterances=6)
  task = jax.tree.map(lambda leaf: leaf[0], batch)
  mel_BTF = jax.random.normal(jax.random.key(1), (6, 200, 20)) + 5
  lengths_B = np.asarray([200, 180, 200, 0, 170, 200], np.int32)

  def of(*flags_B):
    flagged = task._replace(augment_KB=np.asarray(flags_B))
    key = jax.random.key(3)
    return np.asarray(
      gradients._augmented(policy, key, flagged, mel_BTF, lengths_B)
    )

  every_BTF = of(*[True] * 6)
  some_BTF = of(True, False, True, False, False, True)
  for b, flag in enumerate((True, False, True, False, False, True)):
    expected_TF = every_BTF[b] if flag else np.asarray(mel_BTF[b])
    np.testing.assert_array_equal(some_BTF[b], expected_TF)
    changed = (some_BTF[b] != np.asarray(mel_BTF[b])).any()
    assert changed == flag
