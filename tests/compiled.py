"""The real training step, lowered from shapes alone and compiled: no array is made."""

import functools
from typing import NamedTuple

import hlo
import jax
import jax.numpy as jnp
import numpy as np
import tiny

from hra.config import AdapterConfig, MeshConfig, SpaceConfig
from hra.sharding import make_mesh
from hra.train import state
from hra.train.placement import jit_step, laid_out
from hra.train.step import make_step

WIDE = {
  "width": 512,
  "heads": 8,
  "feed_forward": 2048,
  "subsampling_channels": 64,
  "vocabulary": 32,
}
"""A backbone beside which an adapter of h <= d / 4 is small."""
PLAIN = AdapterConfig(family="none")


class Step(NamedTuple):
  """A compiled step, and the state that it takes."""

  compiled: jax.stages.Compiled
  program: hlo.Program
  state: state.TrainState
  """Of shapes."""


def shapes(tree):
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)),
    tree,
  )


def trace(
  adapter: AdapterConfig,
  *,
  kind: SpaceConfig = tiny.TABLE,
  rows: int = len(tiny.NAMES),
  pretrain: bool = False,
  places: int = 2,
  samples: int = tiny.SAMPLES,
  terms=None,
  **backbone,
) -> tuple[jax.stages.Traced, state.TrainState]:
  """The step of `places` tasks x 2 utterances, as the loop runs it."""
  model, space = (
    tiny.model(adapter, **backbone),
    tiny.space(adapter, kind, **backbone),
  )
  optimizers = tiny.optimizers()
  module = jax.eval_shape(functools.partial(tiny.backbone, **backbone))
  fresh = jax.eval_shape(
    lambda pretrained: state.init(
      space,
      optimizers,
      [f"task{place}" for place in range(rows)],
      key=jax.random.key(0),
      pretrained=pretrained,
      keep_best=not pretrain,
    ),
    module if pretrain else None,
  )
  step = make_step(
    model,
    space,
    optimizers,
    policy=None,
  )
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  batch = tiny.batch(tiny.NAMES[:places], samples=samples)
  bound = jit_step(step, terms or tiny.terms(), laid_out(fresh, mesh), mesh)
  traced = bound.func.trace(
    fresh, None if pretrain else module, shapes(batch), **bound.keywords
  )
  return traced, fresh


def lower(
  adapter: AdapterConfig, **arguments
) -> tuple[jax.stages.Lowered, state.TrainState]:
  traced, fresh = trace(adapter, **arguments)
  return traced.lower(), fresh


def step(adapter: AdapterConfig, **arguments) -> Step:
  lowered, fresh = lower(adapter, **arguments)
  compiled = lowered.compile()
  return Step(compiled, hlo.parse(compiled.as_text()), fresh)


def forward(
  adapter: AdapterConfig,
  *,
  rows: int,
  utterances: int = 1,
  samples: int = tiny.SAMPLES,
  with_loss: bool = False,
  **backbone,
) -> hlo.Program:
  """Features and logits of `rows` tasks x `utterances`, each task by its row."""
  model = tiny.model(adapter, **backbone)
  module = jax.eval_shape(functools.partial(tiny.backbone, **backbone))
  key = jax.random.key(0)
  shared = jax.eval_shape(model.adapter.init_shared, key)
  owned = jax.eval_shape(
    jax.vmap(model.adapter.init_task), jax.random.split(key, rows)
  )

  def encode(module, shared, row, batch):
    mel_BTF, lengths_B = jax.vmap(model.features)(
      batch.wave_KBS, batch.lengths_KB
    )
    if not with_loss:
      axes = (None, None, None, None, 0, 0, None)
      return jax.vmap(model.logits, in_axes=axes)(
        module, shared, row, None, mel_BTF, lengths_B, tiny.NO_LABELS
      ).logits
    return jax.vmap(model.loss, in_axes=(None, None, None, 0, 0, 0, 0))(
      module,
      shared,
      row,
      mel_BTF,
      lengths_B,
      batch.labels_KBU,
      batch.label_lengths_KB,
    ).total.sum()

  names = tuple(f"task{place}" for place in range(rows))
  batch = shapes(
    tiny.batch(names, names=names, utterances=utterances, samples=samples)
  )
  many = jax.jit(jax.vmap(encode, in_axes=(None, None, 0, 0)))
  return hlo.parse(many.lower(module, shared, owned, batch).compile().as_text())


def stacked(program: hlo.Program, *, named: str) -> set[tuple[int, ...]]:
  """Shapes of the entry's parameters whose names hold `named`, ones left out."""
  return {
    squeezed(parameter.arrays[0])
    for parameter in program.computations[program.entry].values()
    if parameter.opcode == "parameter" and named in parameter.name
  }


def squeezed(array: hlo.Array) -> tuple[int, ...]:
  return tuple(size for size in array.dims if size > 1)
