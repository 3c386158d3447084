"""A configuration and a folder -> the parts of a run, in order of dependence.

Every verb and notebook assembles a run here and nowhere else; `hra.jobs` trains
and evaluates what stands here.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from hra import claim, config_tree, members, processes
from hra.adapters import families, spaces, table
from hra.backbone import store
from hra.backbone.network import Backbone
from hra.backbone.prompted import Asked
from hra.checkpoint import Checkpoints
from hra.config import BackboneConfig, Config, FrontendConfig, MeshConfig
from hra.data.dataset import Split, heard_whole, open_split
from hra.data.roster import POOLED
from hra.data.tokenizer import Tokenizer
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.features import specaugment
from hra.model import Model
from hra.run_data import (
  bounds_in_samples,
  fingerprint,
  taking_part,
  with_data,
)
from hra.sharding import make_mesh, shardings
from hra.train import optimizer, state
from hra.train.placement import laid_out, make_state


class Parts(NamedTuple):
  """What a run is made of, before anything is trained."""

  config: Config
  workdir: epath.Path
  tasks: tuple[str, ...]
  """Names, in the order of the table's rows."""
  train_split: Split
  bounds: tuple[int, ...]
  """Bucket ends in samples."""
  backbone: store.StoredBackbone
  """Trained or frozen, as the mode says."""
  model: Model
  space: spaces.TaskSpace
  optimizers: state.Optimizers
  mesh: jax.sharding.Mesh

  def split(self, name: str) -> Split:
    """A split of the run's data, without tasks that take no part."""
    opened = open_split(self.config.data.path, name)
    return taking_part(self.config, self.workdir, opened)

  @property
  def pretraining(self) -> bool:
    return self.config.train.mode == "pretrain"

  @property
  def frozen(self) -> Backbone | None:
    return None if self.pretraining else self.backbone.module


def assemble(config: Config, workdir: epath.PathLike) -> Parts:
  """Opens the data and the backbone; claims or reopens the run's folder.

  Raises:
    InputError: bad configuration, data or backbone; a folder of another run.
  """
  config_tree.validate(config)
  workdir = epath.Path(workdir)
  if config.train.mode == "language_model":
    raise InputError(
      workdir,
      expected="a run that trains speech recognition",
      got="one of a language model",
    )
  _check_names_backbone(config)
  config = with_data(config, workdir)
  everyone = open_split(config.data.path, config.data.train_split)
  train_split = taking_part(config, workdir, everyone)
  pooled = config.data.grouping == "pooled"
  tasks = (POOLED,) if pooled else tuple(sorted(set(train_split.tasks)))
  bounds = bounds_in_samples(config, everyone, begun=claim.bounds_of(workdir))
  mesh = make_mesh(config.mesh)
  if config.train.mode == "pretrain" and config.train.start == "random":
    backbone = _fresh_backbone(config, mesh)
  else:
    backbone = store.load(
      config.backbone_path, computed=config.backbone, mesh=mesh
    )
  bounds = heard_whole(train_split, bounds, most=backbone.most_samples)
  model, space, optimizers = learner(config, backbone.config, backbone.frontend)
  policy = specaugment.chosen(config.augment)
  if policy is not None:
    mels = backbone.frontend.width
    specaugment.check_fits(policy, mels=mels)
  claim.claim(
    workdir,
    config,
    tasks,
    backbone=backbone.fingerprint,
    data=fingerprint(config, workdir, train_split),
    bounds=bounds,
  )
  return Parts(
    config=config,
    workdir=workdir,
    tasks=tasks,
    train_split=train_split,
    bounds=bounds,
    backbone=backbone,
    model=model,
    space=space,
    optimizers=optimizers,
    mesh=mesh,
  )


def _check_names_backbone(config: Config) -> None:
  fresh = config.train.mode == "pretrain" and config.train.start == "random"
  if not (fresh or config.backbone_path):
    raise InputError(
      "config.backbone_path",
      expected="a backbone's folder",
      got="nothing, which only hra plan takes",
      fix="such as --config.backbone_path=runs/mine/backbone",
    )


def learner(
  config: Config, backbone: BackboneConfig, frontend: FrontendConfig
) -> tuple[Model, spaces.TaskSpace, state.Optimizers]:
  """What a backbone is adapted by."""
  adapter = families.build(config.adapter, backbone, mels=frontend.width)
  shared, rows = config.train.shared, config.train.rows
  return (
    Model(adapter=adapter, frontend=frontend),
    spaces.build(config.space, adapter=adapter, family=config.adapter),
    state.Optimizers(
      shared=optimizer.build(b1=shared.b1, b2=shared.b2),
      rows=optimizer.build(b1=rows.b1, b2=rows.b2),
    ),
  )


def reopen(workdir: epath.PathLike) -> Parts:
  """The parts of the run that stands in a folder, on the devices that are here.

  Raises:
    InputError: when the folder is not a run's.
  """
  workdir = epath.Path(workdir)
  return assemble(_config_here(workdir), workdir)


def _config_here(workdir: epath.Path) -> Config:
  """A run's configuration; with any mesh where these are other devices."""
  described = claim.read(workdir)
  config = claim.config_of(described, workdir / "config.json")
  try:
    make_mesh(config.mesh)
  except InputError:
    return dataclasses.replace(config, mesh=MeshConfig())
  return config


def initial_state(parts: Parts) -> state.TrainState:
  """A fresh training state, placed by the sharding table."""
  pretrained = None
  if parts.pretraining:  # a copy: training gives its buffers away
    pretrained = jax.tree.map(jnp.copy, parts.backbone.module)
  return make_state(
    _initial(parts), pretrained, mesh=parts.mesh, shard_rows=_shard_rows(parts)
  )


def initial_shapes(parts: Parts) -> state.TrainState:
  """What `initial_state` makes, as shapes."""
  pretrained = parts.backbone.module if parts.pretraining else None
  fresh = jax.eval_shape(_initial(parts), pretrained)
  return laid_out(fresh, parts.mesh, shard_rows=_shard_rows(parts))


def _initial(parts: Parts) -> Callable[[Backbone | None], state.TrainState]:
  best = parts.config.train.select == "best"

  def made(pretrained: Backbone | None) -> state.TrainState:
    return state.init(
      parts.space,
      parts.optimizers,
      parts.tasks,
      key=jax.random.key(parts.config.seed),
      pretrained=pretrained,
      keep_best=best and not parts.pretraining,
    )

  return made


def _shard_rows(parts: Parts) -> str:
  return parts.config.mesh.shard_rows


def adapted_shapes(workdir: epath.PathLike) -> state.TrainState:
  """What the checkpoints of a run that adapts hold, as shapes.

  Its data may be gone.

  Raises:
    InputError: when the folder is not a run's.
  """
  workdir = epath.Path(workdir)
  config = _config_here(workdir)
  mesh = make_mesh(config.mesh)
  backbone = store.outline(config.backbone_path, computed=config.backbone)
  _, space, optimizers = learner(config, *backbone)
  fresh = jax.eval_shape(
    lambda: state.init(
      space,
      optimizers,
      members.tasks_of(workdir),
      key=jax.random.key(config.seed),
      keep_best=config.train.select == "best",
    )
  )
  return laid_out(fresh, mesh, shard_rows=config.mesh.shard_rows)


def trained_state(parts: Parts) -> state.TrainState:
  """The state that a run is evaluated by: as `config.train.select` says.

  Raises:
    InputError: when nothing was trained, or under another configuration; the
      best is asked for and none was evaluated.
  """
  folder = parts.workdir / "checkpoints"
  checkpoints = Checkpoints(folder, access="read")
  found = [checkpoints.latest, checkpoints.best]
  latest, best = processes.first_says(found)
  step = latest
  if parts.pretraining and parts.config.train.select == "best":
    step = best
    if best is None and latest is not None:
      raise InputError(
        folder,
        expected="a checkpoint with a dev WER (config.train.select: best)",
        got="none that was evaluated",
        fix="give the command that trained it again, or select the last",
      )
  restored = checkpoints.restore(initial_shapes(parts), step=step)
  checkpoints.close()
  return restored


def backbone_of(workdir: epath.PathLike) -> epath.Path:
  """The backbone of a run: what it pretrained, or what its configuration names."""
  workdir = epath.Path(workdir)
  config = claim.read(workdir)["config"]
  if config["train"]["mode"] == "pretrain":
    return workdir / "backbone"
  return store.folder_of(config["backbone_path"])


def asked_of(workdir: epath.PathLike) -> Asked:
  """What a run asks of a decoder with prompts."""
  backbone = claim.read(epath.Path(workdir))["config"]["backbone"]
  said = backbone.get("decoder", {})
  fields = Asked._fields
  return Asked(**{field: said[field] for field in fields if field in said})


def describe(parts: Parts) -> str:
  """What is about to run, for the terminal."""
  config = parts.config
  seconds = " / ".join(f"{bound / SAMPLE_RATE:.1f}" for bound in parts.bounds)
  size = table.count(parts.backbone.module)
  key = jax.random.key(0)
  shared = table.count(
    (
      jax.eval_shape(parts.model.adapter.init_shared, key),
      jax.eval_shape(parts.space.init_shared, key),
    )
  )
  row = table.count(jax.eval_shape(parts.space.init_task, key))
  lines = [
    f"{config.train.mode}: {len(parts.tasks):,} task(s), length buckets of "
    f"{seconds} s; the split {config.data.train_split!r} has "
    f"{len(parts.train_split):,} utterances",
    f"backbone {size:,} parameters; adapter {config.adapter.family!r}: "
    f"{shared:,} shared, {row:,} per task",
    f"run folder {parts.workdir}",
  ]
  absent = len(members.left_out(parts.workdir))
  if absent:
    lines.append(
      f"{absent} task(s) of the data are left out: the run that this one repeats "
      "has forgotten them"
    )
  return "\n".join(lines)


def _fresh_backbone(
  config: Config, mesh: jax.sharding.Mesh
) -> store.StoredBackbone:
  """A randomly initialised backbone for the data's (or the given) tokenizer."""
  tokenizer = Tokenizer.load(config.tokenizer or config.data.path)
  vocabulary = config.backbone.vocabulary or tokenizer.vocabulary
  if vocabulary != tokenizer.vocabulary:
    raise InputError(
      "config.backbone.vocabulary",
      expected=f"the tokenizer's {tokenizer.vocabulary} labels, or 0",
      got=str(vocabulary),
    )
  backbone = dataclasses.replace(config.backbone, vocabulary=vocabulary)
  mels = config.features.width
  shapes = store.abstract(backbone, config.features)
  make = jax.jit(
    functools.partial(Backbone, backbone, mels=mels),
    out_shardings=shardings({"backbone": shapes}, mesh)["backbone"],
  )
  return store.StoredBackbone(
    module=make(key=jax.random.fold_in(jax.random.key(config.seed), 2)),
    config=backbone,
    frontend=config.features,
    tokenizer=tokenizer,
    fingerprint=f"untrained-{tokenizer.hash}",
    about={},
  )
