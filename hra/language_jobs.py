"""Trains a language model of a backbone's labels, and writes its folder.

Enters: a configuration with train.mode 'language_model', and a run's folder. Leaves:
config.json, metrics.jsonl, checkpoints and the folder `lm` (`hra.language_store`).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from hra import claim, config_tree, language_store, processes, run_data
from hra.adapters import table
from hra.backbone import store
from hra.checkpoint import Checkpoints, abstract
from hra.config import Config, LanguageModelConfig
from hra.data import sentences
from hra.data.dataset import open_split, split_names
from hra.data.sentences import SentenceBatch, SentenceLoader, Sentences
from hra.data.settings import settings
from hra.data.tokenizer import Tokenizer
from hra.decoders import language_model
from hra.decoders.language_model import LanguageModule
from hra.errors import InputError
from hra.files import read_json, write_json
from hra.sharding import BATCH, batch_sharding, make_mesh, replicated
from hra.train import language, optimizer
from hra.train.language import LanguageState

FOLDER = "lm"
"""Of a run, what it trained."""

_FINISHED = "finished.json"


class Parts(NamedTuple):
  """What a run is made of, before anything is trained."""

  config: Config
  workdir: epath.Path
  tokenizer: Tokenizer
  model: LanguageModelConfig
  """With its vocabulary."""
  train: Sentences
  dev: Sentences | None
  loader: SentenceLoader
  mesh: Mesh


def assemble(config: Config, workdir: epath.PathLike) -> Parts:
  """Reads the text; claims or reopens the run's folder.

  Raises:
    InputError: bad configuration, text or tokenizer; a folder of another run.
  """
  config_tree.validate(config)
  workdir = epath.Path(workdir)
  config = _with_paths(config, workdir)
  tokenizer = Tokenizer.load(
    config.tokenizer or store.folder_of(config.backbone_path)
  )
  model = config.language_model
  if model.vocabulary not in (0, tokenizer.vocabulary):
    raise InputError(
      "config.language_model.vocabulary",
      expected=f"the tokenizer's {tokenizer.vocabulary} labels, or 0",
      got=str(model.vocabulary),
    )
  given = config.sentences
  encode = functools.partial(
    sentences.encode, tokenizer=tokenizer, most=given.max_labels
  )
  train, dev = (
    None if texts is None else encode(texts[1], where=texts[0])
    for texts in _texts(config)
  )
  assert train is not None
  loader = SentenceLoader(
    train,
    batch=given.sentences_per_batch,
    buckets=given.buckets,
    seed=config.seed,
  )
  mesh = make_mesh(config.mesh)
  _check(config, dev, mesh)
  claim.claim(
    workdir,
    config,
    (),
    backbone=f"tokenizer-{tokenizer.hash}",
    data=_fingerprint(train, dev),
    bounds=loader.bounds,
  )
  model = dataclasses.replace(model, vocabulary=tokenizer.vocabulary)
  return Parts(config, workdir, tokenizer, model, train, dev, loader, mesh)


def describe(parts: Parts) -> str:
  """What is about to run, for the terminal."""
  shapes = jax.eval_shape(lambda: _fresh_model(parts))
  ends = " / ".join(map(str, parts.loader.bounds))
  lines = [
    f"language model: {parts.model.kind}, {table.count(shapes):,} parameters, "
    f"{parts.model.vocabulary} labels",
    f"{len(parts.train.lengths_N):,} sentences, length buckets of {ends} labels, "
    f"{parts.loader.steps_per_epoch:,} steps through them all",
    f"run folder {parts.workdir}",
  ]
  if parts.train.too_long:
    lines.append(
      f"{parts.train.too_long:,} sentences of more than "
      f"{parts.config.sentences.max_labels} labels are left out"
    )
  return "\n".join(lines)


def is_finished(parts: Parts) -> bool:
  """Whether a run was trained to its end, and its folder written."""
  paths = parts.workdir / _FINISHED, parts.workdir / FOLDER / "config.json"
  return processes.first_does(lambda: all(path.exists() for path in paths))


def train(parts: Parts, *, quiet: bool = False) -> epath.Path:
  """Trains to the end, from the newest checkpoint if there is one -> the folder.

  Raises:
    InputError: losses are not finite (`hra.train.language`); the run can't go on
      from what is there.
    hra.errors.Interrupted: after a signal, when the state is saved.
  """
  folder = parts.workdir / FOLDER
  if is_finished(parts):
    return folder
  config = parts.config.train
  shared = config.shared
  adamw = optimizer.build(b1=shared.b1, b2=shared.b2)
  everywhere = replicated(parts.mesh)
  state = jax.jit(
    lambda: language.init(_fresh_model(parts), adamw), out_shardings=everywhere
  )()
  shapes = abstract(state)
  step = language.make_step(adamw, settings(shared, steps=config.steps))
  job = language.Job(
    step=jax.jit(step, donate_argnums=0, out_shardings=everywhere),
    batch=lambda position: _placed(parts.loader[position], parts.mesh),
    steps=config.steps,
    dev=_dev(parts),
  )
  state = language.run(state, job, config, workdir=parts.workdir, quiet=quiet)
  if config.select == "best":
    state = _best(parts, shapes)
  loss = None if job.dev is None else job.dev(state.model)
  processes.first_does(lambda: _finish(parts, state, dev_loss=loss))
  return folder


def _finish(
  parts: Parts, state: LanguageState, *, dev_loss: float | None
) -> None:
  """Writes the model's folder, and that the run is finished."""
  language_store.save(
    parts.workdir / FOLDER,
    jax.device_get(state.model),
    parts.model,
    tokenizer=parts.tokenizer,
    about={
      "run": parts.config.name,
      "steps": int(state.step),
      "dev_loss": dev_loss,
      "train_sentences": len(parts.train.lengths_N),
    },
  )
  write_json(parts.workdir / _FINISHED, {"step": int(state.step)})


def dev_loss(workdir: epath.PathLike) -> float | None:
  """Nats for each label of a finished run's model, where it was judged."""
  path = epath.Path(workdir) / FOLDER / "config.json"
  return read_json(path, keys=("about",))["about"]["dev_loss"]


def _with_paths(config: Config, workdir: epath.Path) -> Config:
  """The configuration with absolute paths and, if that is what is read, data."""
  if config.sentences.text:
    return claim.with_files(config)
  return run_data.with_data(config, workdir)


_Texts = tuple[str, Iterable[str]]
"""Where they stand, and they."""


def _texts(config: Config) -> tuple[_Texts, _Texts | None]:
  """Of training, and of what is judged by."""
  told, data = config.sentences, config.data
  dev: _Texts | None = None
  if told.dev_text:
    dev = told.dev_text, sentences.read_lines(told.dev_text)
  elif not told.text and data.dev_split in split_names(data.path):
    dev = data.path, open_split(data.path, data.dev_split).texts
  if told.text:
    return (told.text, sentences.read_lines(told.text)), dev
  return (data.path, open_split(data.path, data.train_split).texts), dev


def _check(config: Config, dev: Sentences | None, mesh: Mesh) -> None:
  if config.train.select == "best" and dev is None:
    raise InputError(
      "config.train.select",
      expected="'last', as there is no dev text (config.sentences.dev_text)",
      got="'best'",
    )
  devices = int(np.prod([mesh.shape[axis] for axis in BATCH]))
  if config.sentences.sentences_per_batch % devices:
    raise InputError(
      "config.sentences.sentences_per_batch",
      expected=f"a multiple of the {devices} devices along the mesh's data and "
      "fsdp axes",
      got=str(config.sentences.sentences_per_batch),
      fix="change it, or config.mesh",
    )


def _fingerprint(*read: Sentences | None) -> str:
  """Of what is trained and judged on."""
  digest = hashlib.blake2b(digest_size=16)
  for each in read:
    if each is not None:
      digest.update(each.ids_X.tobytes() + each.lengths_N.tobytes())
  return digest.hexdigest()


def _fresh_model(parts: Parts) -> LanguageModule:
  return language_model.build(
    parts.model, key=jax.random.key(parts.config.seed)
  )


def _placed(batch: SentenceBatch, mesh: Mesh) -> Any:
  return jax.device_put(batch, batch_sharding(mesh, axis=0))


def _dev(parts: Parts) -> Callable[[LanguageModule], float] | None:
  """A model -> nats for each label of the dev text."""
  dev, loss = parts.dev, jax.jit(language.loss_of)
  if dev is None:
    return None

  def figure(model: LanguageModule) -> float:
    batches = sentences.evaluation_batches(
      dev,
      batch=parts.config.sentences.sentences_per_batch,
      bounds=parts.loader.bounds,
    )
    placed = (_placed(batch, parts.mesh) for batch in batches)
    return language.mean_loss(model, placed, loss)

  return figure


def _best(parts: Parts, shapes: LanguageState) -> LanguageState:
  checkpoints = Checkpoints(
    parts.workdir / "checkpoints", metric=language.DEV_LOSS, access="read"
  )
  state = checkpoints.restore(shapes, step=checkpoints.best)
  checkpoints.close()
  return state
