"""A training step on random audio, for benchmarks: the state, and what advances it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import Run

from hra.adapters import families, spaces
from hra.adapters.interface import Adapter
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.checkpoint import abstract
from hra.config import BackboneConfig, Config, FrontendConfig
from hra.data import settings
from hra.data.batching import Batch
from hra.dims import SAMPLE_RATE
from hra.features import specaugment
from hra.keys import hash_words
from hra.model import Model
from hra.planning import utilisation
from hra.sharding import make_mesh, shardings
from hra.train import optimizer, state
from hra.train.placement import jit_step, place_state
from hra.train.step import Terms, make_step

Advance = Callable[[state.TrainState], state.TrainState]
Step = Callable[[state.TrainState, Batch], state.TrainState]


class Adaptee(NamedTuple):
  """What is adapted."""

  module: Backbone
  frontend: FrontendConfig


class Training(NamedTuple):
  """A job at its start."""

  state: state.TrainState
  """On the devices."""
  advance: Advance
  """The compiled step on one batch; it donates the state."""
  step: Step
  """The same on any batch of the same shapes."""
  flops: float
  """Of a step, as XLA counts: the body of each scan once."""
  temporaries: int
  """Bytes that the step allocates beside what enters and leaves."""
  batch: Batch
  compiled: jax.stages.Compiled
  """The step."""
  learner: "Learner"
  model_flops: Callable[[], int]
  """Of a step, every loop as often as it runs, nothing computed again."""


class Learner(NamedTuple):
  """What a step is made of."""

  model: Model
  space: spaces.TaskSpace
  policy: specaugment.Policy | None
  frozen: Backbone | None


def random_backbone(
  config: BackboneConfig, *, frontend: FrontendConfig | None = None
) -> Adaptee:
  """A backbone of any size with random weights, on the devices."""
  frontend = frontend or FrontendConfig()

  def build() -> Backbone:
    return Backbone(config, mels=frontend.width, key=jax.random.key(0))

  mesh = make_mesh(Config().mesh)
  placed = shardings({"backbone": jax.eval_shape(build)}, mesh)["backbone"]
  return Adaptee(jax.jit(build, out_shardings=placed)(), frontend)


def bundled(config: Config) -> Adaptee:
  """The bundled backbone, computed as a configuration says."""
  mesh = make_mesh(config.mesh)
  stored = store.load("tiny", computed=config.backbone, mesh=mesh)
  return Adaptee(stored.module, stored.frontend)


def make(
  config: Config,
  *,
  tasks: int,
  seconds: float,
  backbone: Adaptee | None = None,
  dense: bool = True,
  adapter: Adapter | None = None,
) -> Training:
  """A job whose first tasks make the batch.

  Args:
    seconds: of each recording, noise.
    backbone: what is adapted in place of the bundled one, or trained.
    dense: rows and moments as training leaves them, not zeros.
    adapter: in place of the configuration's.
  """
  mesh = make_mesh(config.mesh)
  if backbone is None:
    backbone = bundled(config)
  pretraining = config.train.mode == "pretrain"
  mels = backbone.frontend.num_mels * backbone.frontend.stack
  adapter = adapter or families.build(
    config.adapter, backbone.module.config, mels=mels
  )
  model = Model(adapter=adapter, frontend=backbone.frontend)
  space = spaces.build(config.space, adapter=adapter, family=config.adapter)
  adamw = optimizer.build(b1=config.train.rows.b1, b2=config.train.rows.b2)
  optimizers = state.Optimizers(shared=adamw, rows=adamw)
  names = [f"task-{index}" for index in range(tasks)]
  fresh = state.init(
    space,
    optimizers,
    names,
    key=jax.random.key(0),
    # A copy: a step donates what it trains.
    pretrained=jax.tree.map(jnp.copy, backbone.module) if pretraining else None,
  )
  fresh = place_state(_dense(fresh) if dense else fresh, mesh)
  shared = settings.settings(config.train.shared, steps=config.train.steps)
  policy = specaugment.chosen(config.augment)
  step = make_step(model, space, optimizers, policy=policy)
  batch = noise(
    config,
    names[: config.data.tasks_per_batch],
    labels=backbone.module.config.vocabulary,
    seconds=seconds,
  )
  frozen = None if pretraining else backbone.module
  shapes = abstract(fresh)  # the state itself is given away
  bound = jit_step(step, Terms(jax.random.key(1), shared), fresh, mesh)
  compiled = bound.func.lower(fresh, frozen, batch, **bound.keywords).compile()

  def advanced(now: state.TrainState, batch: Batch) -> state.TrainState:
    return compiled(now, frozen, batch, **bound.keywords)[0]

  return Training(
    state=fresh,
    advance=lambda now: advanced(now, batch),
    step=advanced,
    flops=compiled.cost_analysis()["flops"],
    temporaries=compiled.memory_analysis().temp_size_in_bytes,
    batch=batch,
    compiled=compiled,
    learner=Learner(model, space, policy, frozen),
    model_flops=lambda: utilisation.flops(bound, shapes, frozen, batch),
  )


def advancing(made: Training) -> Run:
  """A step of the job each time."""
  now = made.state

  def run() -> Any:
    nonlocal now
    now = made.advance(now)
    return now.step

  return run


def _dense(fresh: state.TrainState) -> state.TrainState:
  """With rows and moments as training leaves them: zeros are cheap to store."""
  rng = np.random.default_rng(0)

  def fill(leaf: jax.Array) -> Any:
    if leaf.dtype != np.float32:
      return leaf
    return np.abs(1e-3 * rng.standard_normal(leaf.shape, np.float32))

  return fresh._replace(
    rows=jax.tree.map(fill, fresh.rows),
    rows_optimizer=jax.tree.map(fill, fresh.rows_optimizer),
  )


def noise(
  config: Config, names: Sequence[str], *, labels: int, seconds: float
) -> Batch:
  """Recordings of noise of the given length, ten labels a second."""
  rng = np.random.default_rng(0)
  size = (len(names), config.data.utterances_per_task)
  samples, spoken = round(seconds * SAMPLE_RATE), round(10 * seconds)
  own = settings.of_tasks(
    names,
    config.train.rows,
    steps_N=[config.train.steps] * len(names),
    given={},
  )
  return Batch(
    wave_KBS=0.1 * rng.standard_normal((*size, samples), np.float32),
    lengths_KB=np.full(size, samples, np.int32),
    labels_KBU=rng.integers(1, labels, (*size, spoken), np.int32),
    label_lengths_KB=np.full(size, spoken, np.int32),
    augment_KB=np.ones(size, bool),
    task_K=np.arange(len(names), dtype=np.int32),
    name_hash_K2=np.stack([hash_words(name) for name in names]),
    own_step_K=np.zeros(len(names), np.int32),
    settings_K=jax.tree.map(
      lambda leaf: leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype)), own
    ),
    shared_weight_K=np.ones(len(names), np.float32),
  )
