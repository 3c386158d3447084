"""A run's state on a split: texts, error rates per task, and a verdict.

Enters: the parts of a run and a trained state. Leaves: results.json and
transcripts.jsonl in the run's folder; dev figures of some tasks while training;
verdicts.json, which says of which tasks the adapted model is better than the
backbone.
"""

import dataclasses
import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import soundfile
from etils import epath

from hra import processes
from hra.adapters import table
from hra.adapters.interface import Tree
from hra.adapters.spaces import TaskSpace, freeze
from hra.backbone.network import Backbone
from hra.config import SearchConfig
from hra.data.audio import encode_int16
from hra.data.batching import BUCKET_MULTIPLE
from hra.data.dataset import Split, heard_whole, split_names
from hra.data.loader import EvaluationBatch, EvaluationLoader
from hra.data.roster import POOLED
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.evaluate import metrics
from hra.evaluate.normalize import normalizer
from hra.evaluate.search import Search, open_search
from hra.evaluate.transcribe import hypotheses
from hra.files import read_json, storage, write_aside, write_json
from hra.run import Parts
from hra.sharding import batch_sharding
from hra.submodels import Verdict
from hra.train.judge import Figures
from hra.train.placement import devices_of, own_places
from hra.train.state import TrainState, chosen_rows

CLIPS = 12
"""Worst utterances whose audio is kept for the report."""

BALANCE = "balance.json"
"""What each task of a run got (`hra.data.balance.Balance.by_task`)."""

_VERDICTS = "verdicts.json"
"""Dev figures and verdict of each task."""


class DevSplit:
  """The dev split of a run, ready to be evaluated task by task."""

  def __init__(self, parts: Parts):
    self._parts = parts
    self._split = parts.split(parts.config.data.dev_split)
    self._loader = _loader(parts, self._split)
    normalize = normalizer(parts.config.evaluate.normalizer)
    self._normalize = normalize
    self._references = [normalize(text) for text in self._split.texts]

  def figures(
    self,
    trained: TrainState,
    tasks: Sequence[int],
    heed: Callable[[], None],
  ) -> Figures:
    """Word errors and words of some tasks, adapted by their last rows.

    Args:
      tasks: rows of the table.
      heed: called before each batch; what it raises ends the evaluation.
    """
    parts = self._parts
    names = [parts.tasks[task] for task in tasks]
    errors, words = Counter[str](), Counter[str]()
    pooled = parts.config.data.grouping == "pooled"
    of = [names[0] if pooled else task for task in self._split.tasks]
    asked = set(names).intersection(of)
    if asked:
      texts = _texts(
        parts,
        trained._replace(progress=trained.progress._replace(best={})),
        self._loader.of(asked),
        adapted=True,
        heed=heed,
      )
      edits = metrics.count_edits(
        [self._references[index] for index in texts],
        [self._normalize(text) for text in texts.values()],
      )
      for index, wrong, length in zip(
        texts, edits.errors.tolist(), edits.length.tolist(), strict=True
      ):
        errors[of[index]] += wrong
        words[of[index]] += length
    return Figures(
      errors_J=np.asarray([errors[name] for name in names]),
      words_J=np.asarray([words[name] for name in names]),
    )


def has_dev(parts: Parts) -> bool:
  """Whether there is a dev split with recordings of who takes part."""
  name = parts.config.data.dev_split
  if name not in split_names(parts.config.data.path):
    return False
  return len(parts.split(name)) > 0


def evaluate(
  parts: Parts,
  trained: TrainState,
  *,
  split: str,
  search: SearchConfig | None = None,
  judging: bool = False,
) -> dict[str, Any]:
  """WER and CER per task, adapted and backbone, into the run's folder.

  Writes results.json, transcripts.jsonl and the audio of the worst utterances.

  Args:
    search: in place of the run's own.
    judging: writes verdicts by these figures, in place of using those that are
      there.

  Raises:
    InputError: the split has no recordings of who takes part.
  """
  config = parts.config
  opened = parts.split(split)
  if not len(opened):
    raise InputError(
      f"split {split!r} of {config.data.path}",
      expected="recordings of the run's tasks",
      got="none",
      fix="give another split",
    )
  searched = search or config.evaluate.search
  heard = functools.partial(texts, parts, trained, opened, search=searched)
  adapted = heard(adapted=True)
  bare: Mapping[int, str] = {}
  if not parts.pretraining or config.train.start == "backbone":
    bare = heard(adapted=False)
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
    dataclasses.replace(config.evaluate, search=searched),
    split=split,
    parameters=parameter_counts(parts, trained),
    adapter=config.adapter.family,
    train_utterances=_train_utterances(parts),
    verdicts=functools.partial(judge if judging else _judged, parts),
  )
  processes.first_does(lambda: _write(parts, opened, transcripts, results))
  return results


def _write(
  parts: Parts,
  split: Split,
  transcripts: list[metrics.Transcript],
  results: Mapping[str, Any],
) -> None:
  transcripts = _keep_clips(parts, split, transcripts)
  lines = "".join(
    json.dumps(dataclasses.asdict(transcript)) + "\n"
    for transcript in transcripts
  )
  write_aside(parts.workdir / "transcripts.jsonl", lines.encode())
  write_json(parts.workdir / "results.json", results)


def texts(
  parts: Parts,
  trained: TrainState,
  split: Split,
  *,
  search: SearchConfig,
  adapted: bool,
) -> dict[int, str]:
  """What is heard in a split's recordings, by their index.

  Raises:
    InputError: the language model is none, or one of other labels.
  """
  return _texts(
    parts,
    trained,
    _loader(parts, split),
    adapted=adapted,
    search=open_search(
      search,
      parts.backbone.tokenizer,
      decoder=parts.backbone.config.decoder.kind,
    ),
  )


def judge(
  parts: Parts, figures: Mapping[str, Mapping[str, Any]]
) -> dict[str, Verdict]:
  """Writes who is better off adapted, by figures on dev; returns it by name.

  Of a pool there is one verdict, by the figures of all.

  Args:
    figures: by name, and of all under the name "".
  """
  least = parts.config.evaluate.guard_words
  pooled = parts.config.data.grouping == "pooled"
  found = {
    task: _verdict(figures.get("" if pooled else task), least_words=least)
    for task in parts.tasks
  }
  told = {
    task: {"verdict": verdict, "dev": figures.get("" if pooled else task)}
    for task, verdict in found.items()
  }
  path = parts.workdir / _VERDICTS
  processes.first_does(lambda: write_json(path, {"tasks": told}))
  return _by_name(parts, found, figures)


def _judged(
  parts: Parts, figures: Mapping[str, Mapping[str, Any]]
) -> dict[str, Verdict]:
  return _by_name(parts, verdicts(parts.workdir), figures)


def _by_name(
  parts: Parts, found: Mapping[str, Verdict], names: Iterable[str]
) -> dict[str, Verdict]:
  """Verdicts by the names that recordings have: in a pool, one for all."""
  if parts.config.data.grouping == "pooled" and POOLED in found:
    return dict.fromkeys(names, found[POOLED])
  return dict(found)


def verdicts(workdir: epath.Path) -> dict[str, Verdict]:
  """What `judge` wrote; nothing where it hasn't."""
  path = workdir / _VERDICTS
  if not path.exists():
    return {}
  told = read_json(path, keys=("tasks",))
  return {task: each["verdict"] for task, each in told["tasks"].items()}


def _verdict(figures: Mapping[str, Any] | None, *, least_words: int) -> Verdict:
  if figures is None or figures["words"] < least_words:
    return "unjudged"
  if figures["backbone_wer"] is None:
    return "unjudged"
  return "better" if figures["wer"] < figures["backbone_wer"] else "not better"


def parameter_counts(parts: Parts, trained: TrainState) -> dict[str, int]:
  """Numbers in the backbone, in what tasks share, and in what one task owns."""
  shared = {
    name: tree for name, tree in trained.shared.items() if name != "backbone"
  }
  return {
    "backbone": table.count(_backbone(parts, trained)),
    "shared": table.count(shared),
    "per_task": table.count(trained.rows) // len(parts.tasks),
  }


def _train_utterances(parts: Parts) -> Mapping[str, int]:
  """What training used of each task; of runs that did not note it, all."""
  path = parts.workdir / BALANCE
  if not path.exists():
    return Counter(parts.train_split.tasks)
  told = read_json(path, keys=("tasks",))
  return {task: each["utterances"] for task, each in told["tasks"].items()}


def _loader(parts: Parts, split: Split) -> EvaluationLoader:
  longest = -(-int(split.samples.max()) // BUCKET_MULTIPLE) * BUCKET_MULTIPLE
  bounds = parts.bounds
  if longest > bounds[-1]:
    bounds = (*bounds, longest)
  bounds = heard_whole(split, bounds, most=parts.backbone.most_samples)
  return EvaluationLoader(
    split,
    tokenizer=parts.backbone.tokenizer,
    table=parts.tasks,
    bounds=bounds,
    config=parts.config.data,
    own=functools.partial(own_places, parts.mesh),
    devices=devices_of(parts.mesh),
  )


def _texts(
  parts: Parts,
  trained: TrainState,
  loader: EvaluationLoader,
  *,
  adapted: bool,
  search: Search | None = None,
  heed: Callable[[], None] = lambda: None,
) -> dict[int, str]:
  """Texts by index; not adapted, they are those of the backbone as it came."""
  backbone = _backbone(parts, trained) if adapted else parts.backbone.module
  return hypotheses(
    parts.model,
    backbone,
    trained.shared["adapter"],
    functools.partial(rows_of, parts.space, trained),
    _heeding(loader.batches(), heed),
    tokenizer=parts.backbone.tokenizer,
    adapted=adapted,
    search=search,
    place=functools.partial(
      jax.make_array_from_process_local_data,
      batch_sharding(parts.mesh, axis=0),
    ),
  )


def rows_of(
  space: TaskSpace, trained: TrainState, task_K: jax.Array | np.ndarray
) -> Tree:
  """The rows [K, ...] that tasks end with, made of what they own."""
  kept = trained._replace(  # no more than the rows are made of
    shared=trained.shared["space"], shared_optimizer={}, rows_optimizer={}
  )
  return _rows_of(space, kept, task_K)


@functools.partial(jax.jit, static_argnums=0)
def _rows_of(space: TaskSpace, kept: TrainState, task_K: jax.Array) -> Tree:
  return freeze(space, kept.shared, chosen_rows(kept, task_K))


def _heeding(
  batches: Iterator[EvaluationBatch], heed: Callable[[], None]
) -> Iterator[EvaluationBatch]:
  for batch in batches:
    heed()
    yield batch


def _backbone(parts: Parts, trained: TrainState) -> Backbone:
  return trained.shared.get("backbone", parts.backbone.module)


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
