"""A configuration and a folder -> the parts of a run, in order of dependence.

Every verb and notebook assembles a run here and nowhere else; `hra.jobs` trains
and evaluates what stands here.
"""

import dataclasses
import functools
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from hra import config_tree
from hra.adapters import families, table
from hra.backbone import store
from hra.backbone.conformer import Conformer
from hra.checkpoint import Checkpoints, abstract
from hra.config import Config
from hra.data.batching import bucket_bounds
from hra.data.dataset import Split, open_split
from hra.data.prepare import prepare
from hra.data.roster import POOLED
from hra.data.synthetic.corpus import synthesize
from hra.data.tokenizer import Tokenizer
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.files import absolute, storage, write_json
from hra.model import Model
from hra.sharding import make_mesh, shardings
from hra.train import optimizer, state
from hra.train.placement import place_state

_FREE = (
  "config.evaluate.",
  "config.mesh.",
  "config.data.eval_batch",
  "config.data.prefetch",
  "config.data.threads",
  "config.data.test_split",
  "config.data.dev_split",
  "config.train.log_every",
  "config.train.eval_every",
  "config.train.save_seconds",
  "config.train.keep",  # and keep_best
  "config.train.select",
)
"""Fields that may change between two calls of one run."""

_VERSIONED = ("hra", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


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
  optimizers: state.Optimizers
  mesh: jax.sharding.Mesh

  @property
  def pretraining(self) -> bool:
    return self.config.train.mode == "pretrain"

  @property
  def frozen(self) -> Conformer | None:
    return None if self.pretraining else self.backbone.module


def assemble(config: Config, workdir: epath.PathLike) -> Parts:
  """Opens the data and the backbone; claims or reopens the run's folder.

  Raises:
    InputError: bad configuration, data or backbone; a folder of another run.
  """
  config_tree.validate(config)
  workdir = epath.Path(workdir)
  config = with_data(config, workdir)
  train_split = open_split(config.data.path, config.data.train_split)
  pooled = config.data.grouping == "pooled"
  tasks = (POOLED,) if pooled else tuple(sorted(set(train_split.tasks)))
  bounds = _bounds(config, train_split)
  mesh = make_mesh(config.mesh)
  if config.train.mode == "pretrain":
    backbone = _fresh_backbone(config, mesh)
  else:
    backbone = store.load(
      config.backbone_path, computed=config.backbone, mesh=mesh
    )
  _claim(workdir, config, tasks, backbone=backbone)
  steps = config.train.steps
  return Parts(
    config=config,
    workdir=workdir,
    tasks=tasks,
    train_split=train_split,
    bounds=bounds,
    backbone=backbone,
    model=Model(
      adapter=families.build(config.adapter, backbone.config),
      frontend=backbone.frontend,
    ),
    optimizers=state.Optimizers(
      shared=optimizer.build_fixed(config.train.shared, steps=steps),
      rows=optimizer.build(config.train.rows),
    ),
    mesh=mesh,
  )


def with_data(config: Config, workdir: epath.Path) -> Config:
  """The configuration with `data.path` settled and, if synthetic, made.

  Raises:
    InputError: no path to prepared data; the synthesiser is not installed.
  """
  if config.data.source == "prepared":
    if config.data.path:
      return _with_path(config, config.data.path)
    raise InputError(
      "config.data.path",
      expected="a folder that hra prepare made",
      got="nothing",
      fix="hra prepare --source=MANIFEST --out=data/mine, then "
      "--config.data.path=data/mine",
    )
  path = epath.Path(config.data.path or workdir / "data")
  manifests = synthesize(path / "corpus", spec=config.synthetic)
  pretraining = config.train.mode == "pretrain"
  backbone = store.folder_of(config.backbone_path)
  prepare(
    manifests,
    path / "prepared",
    # Speakers who swallow sounds may say more labels than fit; the loader knows.
    config=dataclasses.replace(config.prepare, labels_per_second=0.0),
    tokenizer=None if pretraining else backbone / "tokenizer.model",
  )
  return _with_path(config, path / "prepared")


def _with_path(config: Config, path: epath.PathLike) -> Config:
  data = dataclasses.replace(
    config.data, source="prepared", path=str(absolute(path))
  )
  return _with_weights(dataclasses.replace(config, data=data))


def _with_weights(config: Config) -> Config:
  """The configuration with an absolute `data.task_weights`, if it has one."""
  given = config.data.task_weights
  path = given and str(absolute(given))
  data = dataclasses.replace(config.data, task_weights=path)
  return dataclasses.replace(config, data=data)


def reopen(workdir: epath.PathLike) -> Parts:
  """The parts of the run that stands in a folder.

  Raises:
    InputError: when the folder is not a run's.
  """
  workdir = epath.Path(workdir)
  described = _read_claim(workdir)
  return assemble(_config_of(described, workdir / "config.json"), workdir)


def initial_state(parts: Parts) -> state.TrainState:
  """A fresh training state, placed by the sharding table."""
  fresh = state.init(
    parts.model.adapter,
    parts.optimizers,
    parts.tasks,
    key=jax.random.key(parts.config.seed),
    pretrained=parts.backbone.module if parts.pretraining else None,
  )
  return place_state(fresh, parts.mesh)


def trained_state(parts: Parts) -> state.TrainState:
  """The state of the checkpoint that `config.train.select` names.

  Raises:
    InputError: when nothing was trained, or under another configuration; the
      best is asked for and none was evaluated.
  """
  folder = parts.workdir / "checkpoints"
  checkpoints = Checkpoints(folder, access="read")
  step = checkpoints.latest
  if parts.config.train.select == "best":
    step = checkpoints.best
    if step is None and checkpoints.latest is not None:
      raise InputError(
        folder,
        expected="a checkpoint with a dev WER (config.train.select: best)",
        got="none that was evaluated",
        fix="give the command that trained it again, or select the last",
      )
  restored = checkpoints.restore(abstract(initial_state(parts)), step=step)
  checkpoints.close()
  return restored


def backbone_of(workdir: epath.PathLike) -> epath.Path:
  """The backbone of a run: what it pretrained, or what its configuration names."""
  workdir = epath.Path(workdir)
  config = _read_claim(workdir)["config"]
  if config["train"]["mode"] == "pretrain":
    return workdir / "backbone"
  return store.folder_of(config["backbone_path"])


def describe(parts: Parts) -> str:
  """What is about to run, for the terminal."""
  config = parts.config
  seconds = " / ".join(f"{bound / SAMPLE_RATE:.1f}" for bound in parts.bounds)
  size = table.count(parts.backbone.module)
  shared = table.count(
    jax.eval_shape(parts.model.adapter.init_shared, jax.random.key(0))
  )
  row = table.count(
    jax.eval_shape(parts.model.adapter.init_task, jax.random.key(0))
  )
  lines = [
    f"{config.train.mode}: {len(parts.tasks):,} task(s), length buckets of "
    f"{seconds} s; the split {config.data.train_split!r} has "
    f"{len(parts.train_split):,} utterances",
    f"backbone {size:,} parameters; adapter {config.adapter.family!r}: "
    f"{shared:,} shared, {row:,} per task",
    f"run folder {parts.workdir}",
  ]
  return "\n".join(lines)


def _bounds(config: Config, split: Split) -> tuple[int, ...]:
  seconds = config.data.bucket_seconds
  if not seconds:
    return bucket_bounds(split.samples, count=config.data.buckets)
  bounds = tuple(round(end * SAMPLE_RATE) for end in seconds)
  longest = int(split.samples.max())
  if list(bounds) != sorted(set(bounds)) or longest > bounds[-1]:
    raise InputError(
      "config.data.bucket_seconds",
      expected="ascending ends that hold the longest recording "
      f"({longest / SAMPLE_RATE:.2f} s)",
      got=str(seconds),
    )
  return bounds


def _fresh_backbone(
  config: Config, mesh: jax.sharding.Mesh
) -> store.StoredBackbone:
  """A randomly initialised backbone for the data's (or the given) tokenizer."""
  path = config.tokenizer or epath.Path(config.data.path) / "tokenizer.model"
  tokenizer = Tokenizer.load(path)
  vocabulary = config.backbone.vocabulary or tokenizer.vocabulary
  if vocabulary != tokenizer.vocabulary:
    raise InputError(
      "config.backbone.vocabulary",
      expected=f"the tokenizer's {tokenizer.vocabulary} labels, or 0",
      got=str(vocabulary),
    )
  backbone = dataclasses.replace(config.backbone, vocabulary=vocabulary)
  mels = config.features.num_mels * config.features.stack
  make = jax.jit(functools.partial(Conformer, backbone, mels=mels))
  module = make(key=jax.random.fold_in(jax.random.key(config.seed), 2))
  placed = shardings({"backbone": module}, mesh)["backbone"]
  return store.StoredBackbone(
    module=jax.device_put(module, placed),
    config=backbone,
    frontend=config.features,
    tokenizer=tokenizer,
    fingerprint="untrained",
    about={},
  )


def _claim(
  workdir: epath.Path,
  config: Config,
  tasks: Sequence[str],
  *,
  backbone: store.StoredBackbone,
) -> None:
  """Writes config.json and tasks.json, or sees that they say the same."""
  path = workdir / "config.json"
  # What was refused before its first step gives way to what mends it.
  if path.exists() and has_begun(workdir):
    _check_same(path, config, tasks, backbone=backbone)
    described = _read_claim(workdir)
    if _config_of(described, path) != config:  # in what may change
      write_json(path, {**described, "config": config_tree.to_dict(config)})
    return
  with storage(workdir, expected="a run's folder that can be made"):
    workdir.mkdir(parents=True, exist_ok=True)
  described = {
    "config": config_tree.to_dict(config),
    "backbone_fingerprint": backbone.fingerprint,
    "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
    "git": _git_hash(),
  }
  write_json(workdir / "tasks.json", {"tasks": list(tasks)})
  write_json(path, described)


def has_begun(workdir: epath.Path) -> bool:
  """Whether a folder holds anything of a job: a checkpoint or a metric."""
  metrics, checkpoints = workdir / "metrics.jsonl", workdir / "checkpoints"
  with storage(workdir, expected="a run's folder that can be read"):
    steps = checkpoints.iterdir() if checkpoints.exists() else ()
    logged = metrics.exists() and bool(metrics.read_bytes())
    return logged or any(each.name.isdigit() for each in steps)


def _read_claim(workdir: epath.Path) -> dict[str, Any]:
  path = workdir / "config.json"
  if not path.exists():
    raise InputError(
      path,
      expected="a run's folder",
      got="no such file",
      fix="give the --workdir of `hra train` or `hra quickstart`",
    )
  return json.loads(path.read_text())


def _check_same(
  path: epath.Path,
  config: Config,
  tasks: Sequence[str],
  *,
  backbone: store.StoredBackbone,
) -> None:
  described = _read_claim(path.parent)
  before = _flat(config_tree.to_dict(_config_of(described, path)))
  before |= {
    "backbone": described["backbone_fingerprint"],
    "tasks": json.loads((path.parent / "tasks.json").read_text())["tasks"],
  }
  now = _flat(config_tree.to_dict(config))
  now |= {"backbone": backbone.fingerprint, "tasks": list(tasks)}
  for field in sorted(before.keys() | now.keys()):
    if field.startswith(_FREE):
      continue
    if before.get(field) != now.get(field):
      raise InputError(
        f"{path}: {field}",
        expected=_short(before.get(field)),
        got=_short(now.get(field)),
        fix="this folder is another run's: give a fresh --workdir, or its config",
      )


def _config_of(described: Mapping[str, Any], path: epath.Path) -> Config:
  """What a run's config.json says; a field newer than the run has its default."""
  fields = described["config"]
  return _with_weights(config_tree.from_dict(Config, fields, path=str(path)))


def _flat(values: Mapping[str, Any], prefix: str = "config") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for name, value in values.items():
    path = f"{prefix}.{name}"
    if isinstance(value, Mapping):
      flat |= _flat(value, path)
    else:
      flat[path] = value
  return flat


def _short(value: Any, *, most: int = 80) -> str:
  text = repr(value)
  return text if len(text) <= most else f"{text[:most]}..."


def _git_hash() -> str | None:
  """The checkout's commit, where the program runs from one."""
  try:
    done = subprocess.run(
      ["git", "rev-parse", "HEAD"],
      cwd=epath.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()
