"""What is done with a run: train it, judge it, export its Submodels."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from etils import epath

from hra import claim, export, given, members, processes, scoring, starts
from hra.adapters.spaces import TaskSpace
from hra.config import SpecAugmentConfig
from hra.data import settings, sounds
from hra.data.balance import read_shares, read_weights
from hra.data.batching import Batch
from hra.data.examples import LABEL_MULTIPLE
from hra.data.loader import Loader
from hra.data.roster import POOLED
from hra.errors import InputError
from hra.features import specaugment
from hra.features.frontend import num_frames
from hra.files import read_json, storage, write_json
from hra.model import Model
from hra.nn.subsampling import subsampled
from hra.planning import utilisation
from hra.run import Parts, backbone_of, initial_state, trained_state
from hra.train import loop
from hra.train.judge import Plan
from hra.train.noise import WeightNoise
from hra.train.placement import (
  batch_placement,
  devices_of,
  jit_step,
  own_places,
  parts_of,
  place_batch,
)
from hra.train.state import Optimizers, TrainState
from hra.train.step import Step, Terms, make_step

FINISHED = "finished.json"
"""Written last, when a run is trained and exported: which checkpoint that was."""

_ENROLMENT_LABELS = 64
"""Labels are padded to a multiple of that where tasks are added to a run: who is
added next then needs no other compiled program."""


def train(
  parts: Parts,
  *,
  quiet: bool = False,
  start: TrainState | None = None,
  profile: range | None = None,
) -> TrainState:
  """Trains to the end, from the newest checkpoint if there is one.

  A run that is finished is not trained: it may have forgotten tasks since.

  Args:
    start: what a new job starts from, in place of a fresh state.
    profile: steps to capture (`hra.train.profiler`).

  Returns:
    The state that `config.train.select` names.

  Raises:
    InputError: a backbone's loss or gradient is not finite (`hra.train.loop`); the
      run can't go on from what is there.
    hra.errors.Interrupted: after a signal, when the state is saved.
  """
  if processes.first_does(lambda: _is_trained(parts.workdir)):
    given.check(parts.workdir, parts.config, parts.tasks)
    return trained_state(parts)
  processes.first_does(lambda: _check_goes_on(parts.workdir))
  loader = make_loader(parts)
  if not quiet:
    print("".join(f"{line}\n" for line in loader.roster.describe()), end="")
  initial = [_initial(parts) if start is None else start]
  job = make_job(parts, loader, initial=initial[0])
  if start is None:
    _check_learns(parts, job)
  processes.first_does(lambda: _begin(parts, loader))
  last = loop.run(
    initial.pop(),  # the loop's alone, so that a restored one replaces it
    job,
    parts.config.train,
    workdir=parts.workdir,
    quiet=quiet,
    profile=profile,
  )
  best = parts.pretraining and parts.config.train.select == "best"
  return trained_state(parts) if best else last


def _initial(parts: Parts) -> TrainState:
  """A state at step 0; where there is a checkpoint, which replaces it, a fresh one."""
  fresh = initial_state(parts)
  newest = processes.first_does(lambda: _newest(parts.workdir))
  if not parts.config.train.rows_from or newest >= 0:
    return fresh
  return starts.begun(parts, fresh)


def _check_goes_on(workdir: epath.Path) -> None:
  """Whether a run that was finished can be trained again where it was left."""
  if (workdir / FINISHED).exists() and members.forgotten(workdir):
    raise InputError(
      workdir / "checkpoints",
      expected="the checkpoint that the run ended with",
      got="none as new",
      fix="bring it back: since it has forgotten tasks, the run can't be trained "
      "from an earlier one; or train another",
    )


def is_finished(workdir: epath.Path) -> bool:
  """Whether a run was trained to its end, and what it is for was exported."""
  return processes.first_does(lambda: _is_finished(workdir))


def _is_finished(workdir: epath.Path) -> bool:
  tasks = members.tasks_of(workdir)
  if not tasks or not _is_trained(workdir):
    return False
  if claim.read_config(workdir)["config"]["train"]["mode"] == "pretrain":
    return (backbone_of(workdir) / "config.json").exists()
  judged = scoring.verdicts(workdir).keys() >= set(tasks)
  return judged and export.held(workdir) >= set(tasks)


def _is_trained(workdir: epath.Path) -> bool:
  """Whether the checkpoint that a run ended with, or one as new, is still there."""
  path = workdir / FINISHED
  if not path.exists():
    return False
  last = read_json(path, keys=("checkpoint",))["checkpoint"]
  return _newest(workdir) >= last


def _newest(workdir: epath.Path) -> int:
  """The number of the newest checkpoint; -1 where there is none."""
  checkpoints = workdir / "checkpoints"
  with storage(checkpoints, expected="a folder that can be read"):
    there = checkpoints.is_dir()
    names = [each.name for each in checkpoints.iterdir()] if there else []
  return max((int(name) for name in names if name.isdigit()), default=-1)


def make_job(parts: Parts, loader: Loader, *, initial: TrainState) -> loop.Job:
  """What the loop runs: the step compiled for the mesh, its batches, the dev split.

  Raises:
    InputError: the dev split can't be evaluated, or `select` is "best" and there
      is no dev split.
  """
  config = parts.config
  if config.train.select == "best" and not scoring.has_dev(parts):
    raise InputError(
      "config.train.select",
      expected=f"'last', as the data have no {config.data.dev_split!r} split",
      got="'best'",
    )
  plan = make_plan(parts, loader)
  length = len(loader) if parts.pretraining else plan.frozen_from
  placement = batch_placement(parts.mesh, axis=loader.split_axis)
  step = _step(
    parts.model,
    parts.space,
    parts.optimizers,
    dataclasses.replace(config.augment),
    placement,
  )
  terms = Terms(
    key=jax.random.key(config.seed + 1),
    shared=settings.settings(config.train.shared, steps=length)
    if length
    else None,
    max_bad_steps=config.train.max_bad_steps,
    weight_noise=WeightNoise(
      config.train.weight_noise, config.train.weight_noise_start
    )
    if config.train.weight_noise
    else None,
  )
  compiled = jit_step(step, terms, initial, parts.mesh)
  return loop.Job(
    step=compiled,
    frozen=parts.frozen,
    batches=lambda start: (
      place_batch(batch, placement) for batch in loader.batches(start)
    ),
    steps=len(loader),
    tasks=parts.tasks,
    plan=plan,
    evaluate=scoring.DevSplit(parts).figures
    if scoring.has_dev(parts)
    else None,
    ideal=utilisation.ideal(compiled, parts.mesh),
  )


def make_plan(parts: Parts, loader: Loader) -> Plan:
  """When tasks are evaluated, and from when on that counts.

  Raises:
    InputError: a patience that nothing could end.
  """
  train = parts.config.train
  given = _files(parts).settings
  patience_N = settings.counts(
    parts.tasks, "patience", [train.patience] * len(parts.tasks), given=given
  )
  if patience_N.any() and (train.select != "best" or not train.eval_every):
    raise InputError(
      f"patience in {train.task_settings}"
      if given
      else "config.train.patience",
      expected="evaluations to wait for (config.train.eval_every) and a best row "
      "to end with (config.train.select 'best')",
      got=f"eval_every {train.eval_every}, select {train.select!r}",
    )
  joint = _joint_steps(parts, len(loader))
  if patience_N.any() and joint >= len(loader) > 0:
    raise InputError(
      "config.train.patience",
      expected="0, where what is shared trains to the end: nothing is judged before",
      got=str(patience_N.max()),
      fix="lower config.train.shared_part",
    )
  return Plan(
    places=lambda position: loader.plan[position].places,
    own_steps_N=loader.roster.balance.own_steps_N,
    patience_N=patience_N,
    every=train.eval_every,
    frozen_from=joint,
    max_bad_steps=train.max_bad_steps,
    from_start=train.select == "best" and not joint and not parts.pretraining,
  )


def _joint_steps(parts: Parts, steps: int) -> int:
  """Of all joint steps, those in which what tasks share trains.

  All of them, where tasks own nothing that could train after that.
  """
  if parts.pretraining or not _shares(parts):
    return 0
  owned = jax.eval_shape(parts.space.init_task, jax.random.key(0))
  if not jax.tree.leaves(owned) and parts.config.train.shared_part > 0:
    return steps
  return round(parts.config.train.shared_part * steps)


def _check_learns(parts: Parts, job: loop.Job) -> None:
  """Whether a fresh job trains what its tasks depend on.

  A fresh generator is zero and hands nothing on to embeddings; tasks that own
  nothing learn by what is shared alone.
  """
  config = parts.config
  heads = config.adapter.family == "hra" and config.adapter.heads
  depends = config.space.kind == "embedding" or heads == "shared"
  if depends and job.steps and not job.plan.frozen_from:
    raise InputError(
      "config.train.shared_part",
      expected="a part of the job in which the shared parameters train, with "
      "config.space.kind='embedding' or config.adapter.heads='shared'",
      got=f"{config.train.shared_part:g}: none of {job.steps} joint steps",
    )


def _shares(parts: Parts) -> bool:
  """Whether tasks share any parameters beside the backbone."""
  key = jax.random.key(0)
  shared = (
    jax.eval_shape(parts.model.adapter.init_shared, key),
    jax.eval_shape(parts.space.init_shared, key),
  )
  return bool(jax.tree.leaves(shared))


def finish(parts: Parts, trained: TrainState) -> epath.Path:
  """Judges tasks on the dev split, then exports Submodels, or the backbone."""
  dev: dict[str, Any] = {"overall": None, "tasks": {}}
  if scoring.has_dev(parts):
    split = parts.config.data.dev_split
    judging = not parts.pretraining
    dev = scoring.evaluate(parts, trained, split=split, judging=judging)
  elif not parts.pretraining:
    scoring.judge(parts, {})
  if parts.pretraining:
    about = {"run": parts.config.name, "dev": dev["overall"]}
    folder = export.backbone(parts, trained, about=about)
  else:
    pooled = parts.config.data.grouping == "pooled"
    told = {POOLED: dev["overall"]} if pooled else dev["tasks"]
    folder = export.rows(parts, trained, dev=told)
  processes.first_does(lambda: _finished(parts.workdir))
  return folder


def _finished(workdir: epath.Path) -> None:
  write_json(workdir / FINISHED, {"checkpoint": _newest(workdir)})


def make_loader(parts: Parts) -> Loader:
  """The training batches of a run, in the order of its plan."""
  frontend, files = parts.backbone.frontend, _files(parts)
  backbone = parts.backbone.config

  decoder = backbone.decoder

  def frames(samples: int) -> int:
    return subsampled(num_frames(samples, frontend), backbone)

  return Loader(
    parts.train_split,
    tokenizer=parts.backbone.tokenizer,
    table=parts.tasks,
    bounds=parts.bounds,
    config=parts.config.data,
    steps_per_task=parts.config.train.steps,
    seed=parts.config.seed,
    frames=frames if decoder.kind == "ctc" else None,
    most_labels=decoder.places - len(decoder.prompt)
    if decoder.kind == "transformer"
    else None,
    weights=files.weights,
    shares=files.shares,
    parts=files.parts,
    optimizer=parts.config.train.rows,
    given=files.settings,
    label_multiple=_ENROLMENT_LABELS
    if claim.parent_of(parts.workdir)
    else LABEL_MULTIPLE,
    own=functools.partial(own_places, parts.mesh),
    processes=parts_of(parts.mesh),
    devices=devices_of(parts.mesh),
  )


class _Files(NamedTuple):
  """What files say of tasks, in the order of `given.KEPT`."""

  weights: dict[str, float]
  shares: dict[str, float]
  parts: dict[str, float]
  settings: settings.Given


def _files(parts: Parts) -> _Files:
  data = parts.config.data
  pooled = data.grouping == "pooled"
  heard = sorted(set(parts.train_split.tasks)) if pooled else parts.tasks
  path = parts.config.train.task_settings
  return _Files(
    weights=read_weights(data.task_weights, tasks=parts.tasks),
    shares=read_shares(data.task_shares, tasks=heard),
    parts=sounds.read_parts(data.multistyle.parts, tasks=heard),
    settings=settings.read_settings(path, tasks=parts.tasks),
  )


def _begin(parts: Parts, loader: Loader) -> None:
  """Notes beside the run what its tasks get, when nothing is left to refuse."""
  with storage(parts.workdir, expected="a folder that can be written to"):
    (parts.workdir / FINISHED).unlink(missing_ok=True)
  given.keep(parts.workdir, parts.config, _files(parts))
  style = parts.config.data.multistyle
  given.keep_sounds(parts.workdir, sounds.fingerprints(style, loader.sounds))
  write_json(parts.workdir / scoring.BALANCE, loader.roster.balance.by_task())


@functools.lru_cache(maxsize=8)
def _step(
  model: Model,
  space: TaskSpace,
  optimizers: Optimizers,
  augment: SpecAugmentConfig,
  placement: Batch,
) -> Step:
  """The step of a job; one for equal jobs of a process, which then share what is
  compiled of it."""
  policy = specaugment.chosen(augment)
  return make_step(model, space, optimizers, policy=policy, placement=placement)
