"""A configuration -> what its run is made of, as shapes; no array is made."""

from typing import Any

import jax
import jax.numpy as jnp

from hra import run
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.config import Config
from hra.data import settings
from hra.data.batching import Batch
from hra.planning import scale
from hra.planning.outlines import Outline
from hra.planning.scale import Scale
from hra.train import state
from hra.train.noise import WeightNoise
from hra.train.step import Terms


class Parts:
  """What a run is made of, as shapes."""

  def __init__(self, config: Config, outline: Outline, sizes: Scale):
    self.config = config
    self.pretrains = config.train.mode == "pretrain"
    self.module: Backbone = store.abstract(outline.config, outline.frontend)
    self.model, self.space, self.optimizers = run.learner(
      config, outline.config, outline.frontend
    )
    names = [f"task-{place}" for place in range(sizes.tasks)]
    best = config.train.select == "best" and not self.pretrains
    self.state: state.TrainState = jax.eval_shape(
      lambda pretrained: state.init(
        self.space,
        self.optimizers,
        names,
        key=jax.random.key(0),
        pretrained=pretrained,
        keep_best=best,
      ),
      self.module if self.pretrains else None,
    )

  @property
  def frozen(self) -> Backbone | None:
    return None if self.pretrains else self.module


def terms_of(parts: Parts) -> Terms:
  """As a job's own: its step is traced with these."""
  train = parts.config.train
  trains = parts.pretrains or train.shared_part > 0
  shares = bool(jax.tree.leaves(parts.state.shared))
  noise = WeightNoise(train.weight_noise, train.weight_noise_start)
  return Terms(
    key=jax.random.key(0),
    shared=settings.settings(train.shared, steps=train.steps)
    if trains and shares
    else None,
    max_bad_steps=train.max_bad_steps,
    weight_noise=noise if train.weight_noise else None,
  )


def batch_of(sizes: Scale, *, parts: int = 1) -> Batch:
  """A batch as shapes; of several parts, one device's."""
  size = [sizes.places, sizes.utterances]
  size[scale.split_axis(sizes)] //= parts
  places = size[:1]

  def of(shape: list[int], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)

  example = settings.Settings(
    steps=jnp.int32,
    learning_rate=jnp.float32,
    schedule=jnp.int32,
    warmup_steps=jnp.int32,
    hold_steps=jnp.int32,
    weight_decay=jnp.float32,
    clip_norm=jnp.float32,
  )
  return Batch(
    wave_KBS=of([*size, sizes.samples], jnp.float32),
    lengths_KB=of(size, jnp.int32),
    labels_KBU=of([*size, sizes.labels], jnp.int32),
    label_lengths_KB=of(size, jnp.int32),
    augment_KB=of(size, jnp.bool_),
    task_K=of(places, jnp.int32),
    name_hash_K2=of([*places, 2], jnp.uint32),
    own_step_K=of(places, jnp.int32),
    settings_K=jax.tree.map(lambda dtype: of(places, dtype), example),
    shared_weight_K=of(places, jnp.float32),
  )
