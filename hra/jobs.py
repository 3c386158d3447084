"""What is done with a run: train it, evaluate it, export its Submodels."""

import dataclasses
import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import soundfile
from etils import epath

from hra import submodels
from hra.adapters import table
from hra.backbone import store
from hra.backbone.conformer import Conformer
from hra.config import SpecAugmentConfig
from hra.data.audio import encode_int16
from hra.data.balance import read_weights
from hra.data.batching import BUCKET_MULTIPLE
from hra.data.dataset import Split, open_split, split_names
from hra.data.loader import EvaluationBatch, EvaluationLoader, Loader
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.evaluate import metrics
from hra.evaluate.normalize import normalizer
from hra.evaluate.transcribe import hypotheses
from hra.features import specaugment
from hra.features.frontend import num_frames
from hra.files import storage, write_aside, write_json
from hra.nn.convolution import subsampled
from hra.run import Parts, has_begun, initial_state, trained_state
from hra.sharding import BATCH
from hra.train import loop
from hra.train.log import DEV_WER
from hra.train.optimizer import updates_done
from hra.train.placement import batch_placement, jit_step, place_batch
from hra.train.state import TrainState
from hra.train.step import make_step

CLIPS = 12
"""Worst utterances whose audio is kept for the report."""

_BALANCE = "balance.json"
"""What each task of a run got (`hra.data.balance.Balance.by_task`)."""


def train(parts: Parts, *, quiet: bool = False) -> TrainState:
  """Trains to the end, from the newest checkpoint if there is one.

  Returns:
    The state that `config.train.select` names.

  Raises:
    hra.errors.Interrupted: after a signal, when the state is saved.
  """
  loader = make_loader(parts)
  if not quiet:
    print("".join(f"{line}\n" for line in loader.roster.describe()), end="")
  initial = [initial_state(parts)]
  job = make_job(parts, loader, initial=initial[0])
  _begin(parts, loader)
  last = loop.run(
    initial.pop(),  # the loop's alone, so that a restored one replaces it
    job,
    parts.config.train,
    workdir=parts.workdir,
    quiet=quiet,
  )
  best = parts.config.train.select == "best"
  return trained_state(parts) if best else last


def make_job(parts: Parts, loader: Loader, *, initial: TrainState) -> loop.Job:
  """What the loop runs: the step compiled for the mesh, its batches, the dev split.

  Raises:
    InputError: devices don't divide a batch, the dev split can't be evaluated,
      or `select` is "best" and there is no dev split.
  """
  config = parts.config
  _check_divides(parts, loader)
  step = make_step(
    parts.model,
    parts.optimizers,
    policy=_policy(config.augment),
    key=jax.random.key(config.seed + 1),
  )
  placement = batch_placement(
    parts.mesh, axis=_split_axis(parts, loader.shard_axis)
  )
  evaluate_dev = None
  if _has_dev(parts):
    dev = open_split(config.data.path, config.data.dev_split)
    evaluate_dev = functools.partial(
      dev_figures, parts, dev, loader=_evaluation_loader(parts, dev)
    )
  elif config.train.select == "best":
    raise InputError(
      "config.train.select",
      expected=f"'last', as the data have no {config.data.dev_split!r} split",
      got="'best'",
    )
  return loop.Job(
    step=jit_step(step, initial, parts.mesh),
    frozen=parts.frozen,
    batches=lambda start: (
      place_batch(batch, placement) for batch in loader.batches(start)
    ),
    steps=len(loader),
    evaluate=evaluate_dev,
  )


def finish(parts: Parts, trained: TrainState) -> epath.Path:
  """Scores the dev split, then exports Submodels, or the backbone, with it."""
  dev: dict[str, Any] = {"overall": None, "tasks": {}}
  if _has_dev(parts):
    dev = evaluate(parts, trained, split=parts.config.data.dev_split)
  if parts.pretraining:
    about = {"run": parts.config.name, "dev": dev["overall"]}
    return export_backbone(parts, trained, about=about)
  return export(parts, trained, dev=dev["tasks"])


def dev_figures(
  parts: Parts,
  split: Split,
  trained: TrainState,
  heed: Callable[[], None],
  *,
  loader: EvaluationLoader,
) -> dict[str, float]:
  """WER of a split, adapted, for the log.

  Args:
    heed: called before each batch; what it raises ends the evaluation.
  """
  texts = _texts(parts, trained, loader, adapted=True, heed=heed)
  normalize = normalizer(parts.config.evaluate.normalizer)
  edits = metrics.count_edits(
    [normalize(text) for text in split.texts],
    [normalize(texts[index]) for index in range(len(split))],
  )
  return {DEV_WER: float(edits.errors.sum() / max(edits.length.sum(), 1))}


def evaluate(
  parts: Parts, trained: TrainState, *, split: str
) -> dict[str, Any]:
  """WER and CER per task, adapted and backbone, into the run's folder.

  Writes results.json, transcripts.jsonl and the audio of the worst utterances.
  """
  config = parts.config
  opened = open_split(config.data.path, split)
  loader = _evaluation_loader(parts, opened)
  adapted = _texts(parts, trained, loader, adapted=True)
  bare = (
    {} if parts.pretraining else _texts(parts, trained, loader, adapted=False)
  )
  transcripts = [
    metrics.Transcript(
      id=opened.ids[index],
      task=opened.tasks[index],
      reference=opened.texts[index],
      hypothesis=adapted[index],
      backbone_hypothesis=bare.get(index),
      seconds=int(opened.samples[index]) / SAMPLE_RATE,
    )
    for index in range(len(opened))
  ]
  results = metrics.score(
    transcripts,
    config.evaluate,
    split=split,
    parameters=parameter_counts(parts, trained),
    adapter=config.adapter.family,
    train_utterances=_train_utterances(parts),
  )
  transcripts = _keep_clips(parts, opened, transcripts)
  lines = "".join(
    json.dumps(dataclasses.asdict(transcript)) + "\n"
    for transcript in transcripts
  )
  write_aside(parts.workdir / "transcripts.jsonl", lines.encode())
  write_json(parts.workdir / "results.json", results)
  return results


def export(
  parts: Parts, trained: TrainState, *, dev: Mapping[str, Any] | None = None
) -> epath.Path:
  """Writes one Submodel file per task, and the shared parameters once.

  Args:
    dev: figures by task (as in results.json) to record in each file.
  """
  folder = parts.workdir / "submodels"
  with storage(folder, expected="a folder that can be made"):
    folder.mkdir(parents=True, exist_ok=True)
  shared = jax.device_get(trained.shared["adapter"])
  rows = jax.device_get(trained.rows)
  own_steps_N = jax.device_get(updates_done(trained.rows_optimizer))
  fingerprint = submodels.save_shared(folder, shared)
  for place, task in enumerate(parts.tasks):
    submodels.save(
      folder,
      submodels.Submodel(
        task=task,
        adapter=parts.config.adapter,
        row=jax.tree.map(lambda leaf, place=place: leaf[place], rows),
        shared=shared,
        backbone_fingerprint=parts.backbone.fingerprint,
        shared_fingerprint=fingerprint,
        summary={
          "run": parts.config.name,
          "own_steps": int(own_steps_N[place]),
          "skipped_steps": int(trained.skipped_N[place]),
          "dev": (dev or {}).get(task),
        },
      ),
    )
  return folder


def export_backbone(
  parts: Parts, trained: TrainState, *, about: Mapping[str, Any]
) -> epath.Path:
  """Writes the backbone that was pretrained as a folder of its own."""
  folder = parts.workdir / "backbone"
  with storage(folder, expected="a folder that can be made"):
    folder.mkdir(parents=True, exist_ok=True)
  store.save(
    folder,
    jax.device_get(_backbone(parts, trained)),
    frontend=parts.backbone.frontend,
    tokenizer=parts.backbone.tokenizer,
    about=about,
  )
  return folder


def parameter_counts(parts: Parts, trained: TrainState) -> dict[str, int]:
  """Numbers in the backbone, in what tasks share, and in one task's row."""
  return {
    "backbone": table.count(_backbone(parts, trained)),
    "shared": table.count(trained.shared["adapter"]),
    "per_task": table.count(trained.rows) // len(parts.tasks),
  }


def _has_dev(parts: Parts) -> bool:
  return parts.config.data.dev_split in split_names(parts.config.data.path)


def _train_utterances(parts: Parts) -> Mapping[str, int]:
  """What training used of each task; of runs that did not note it, all."""
  path = parts.workdir / _BALANCE
  if not path.exists():
    return Counter(parts.train_split.tasks)
  with storage(path, expected="a file that can be read"):
    told = json.loads(path.read_text())
  return {task: each["utterances"] for task, each in told["tasks"].items()}


def _evaluation_loader(parts: Parts, split: Split) -> EvaluationLoader:
  longest = -(-int(split.samples.max()) // BUCKET_MULTIPLE) * BUCKET_MULTIPLE
  bounds = parts.bounds
  if longest > bounds[-1]:
    bounds = (*bounds, longest)
  return EvaluationLoader(
    split,
    tokenizer=parts.backbone.tokenizer,
    table=parts.tasks,
    bounds=bounds,
    config=parts.config.data,
  )


def _texts(
  parts: Parts,
  trained: TrainState,
  loader: EvaluationLoader,
  *,
  adapted: bool,
  heed: Callable[[], None] = lambda: None,
) -> dict[int, str]:
  return hypotheses(
    parts.model,
    _backbone(parts, trained),
    trained.shared["adapter"],
    trained.rows,
    _heeding(loader.batches(), heed),
    tokenizer=parts.backbone.tokenizer,
    adapted=adapted,
  )


def _heeding(
  batches: Iterator[EvaluationBatch], heed: Callable[[], None]
) -> Iterator[EvaluationBatch]:
  for batch in batches:
    heed()
    yield batch


def _backbone(parts: Parts, trained: TrainState) -> Conformer:
  return trained.shared.get("backbone", parts.backbone.module)


def make_loader(parts: Parts) -> Loader:
  """The training batches of a run, in the order of its plan."""
  frontend = parts.backbone.frontend
  return Loader(
    parts.train_split,
    tokenizer=parts.backbone.tokenizer,
    table=parts.tasks,
    bounds=parts.bounds,
    config=parts.config.data,
    steps_per_task=parts.config.train.steps,
    seed=parts.config.seed,
    frames=lambda samples: subsampled(num_frames(samples, frontend)),
    weights=read_weights(parts.config.data.task_weights, tasks=parts.tasks),
  )


def _begin(parts: Parts, loader: Loader) -> None:
  """Notes beside the run what its tasks get, when nothing is left to refuse."""
  if parts.config.data.task_weights:
    _keep_weights(parts, loader.roster.given)
  write_json(parts.workdir / _BALANCE, loader.roster.balance.by_task())


def _keep_weights(parts: Parts, weights: Mapping[str, float]) -> None:
  """Keeps a copy beside the run, which goes on with the same weights only."""
  kept = parts.workdir / "task_weights.json"
  if not kept.exists() or not has_begun(parts.workdir):
    write_json(kept, weights)
  elif json.loads(kept.read_text()) != weights:
    raise InputError(
      parts.config.data.task_weights,
      expected=f"the weights that the run began with ({kept})",
      got="others",
      fix="give a fresh --workdir, or that file's weights",
    )


def _policy(config: SpecAugmentConfig) -> specaugment.Policy | None:
  if not (config.freq_masks or config.time_masks or config.warp):
    return None
  return specaugment.make_policy(config)


def _check_divides(parts: Parts, loader: Loader) -> None:
  devices = int(np.prod([parts.mesh.shape[axis] for axis in BATCH]))
  size = (loader.places, parts.config.data.utterances_per_task)
  axis = _split_axis(parts, loader.shard_axis)
  if size[axis] % devices:
    field = ("tasks_per_batch", "utterances_per_task")[axis]
    raise InputError(
      f"config.data.{field}",
      expected=f"a multiple of the {devices} devices along the mesh's data and "
      "fsdp axes",
      got=str(size[axis]),
      fix="change it, or config.mesh",
    )


def _split_axis(parts: Parts, process_axis: int) -> int:
  """The batch's axis that devices divide: the pool's one task can't be split."""
  return 1 if len(parts.tasks) == 1 else process_axis


def _keep_clips(
  parts: Parts, split: Split, transcripts: list[metrics.Transcript]
) -> list[metrics.Transcript]:
  """Keeps the worst utterances' audio; says on their lines where."""
  folder = parts.workdir / "audio"
  with storage(folder, expected="a folder that can be made"):
    folder.mkdir(parents=True, exist_ok=True)
  worst = metrics.worst(transcripts, parts.config.evaluate, count=CLIPS)
  place = {(each.task, each.id): i for i, each in enumerate(worst)}
  kept = []
  for index, transcript in enumerate(transcripts):
    key = (transcript.task, transcript.id)
    if key in place:
      name = f"audio/{place[key]:02d}.wav"
      wave = encode_int16(split[index].wave_S)
      encoded = io.BytesIO()
      soundfile.write(encoded, wave, SAMPLE_RATE, format="WAV")
      write_aside(parts.workdir / name, encoded.getvalue())
      transcript = dataclasses.replace(transcript, audio=name)
    kept.append(transcript)
  return kept
