"""Prepared data: recordings in random-access files, and an index beside them.

Enters: records of audio files, by split. Leaves: a folder with

    recordings/1.0.0/    a TFDS dataset (array_record; int16 samples at 16 kHz)
    index-SPLIT.json     ids, tasks, texts, lengths and files, in columns

and, from `open_split`, a `Split` that is read by position. What a batch plan
needs is in the index, so that opening a split reads no audio; `tfds` is imported
at the first read.
"""

import collections
import contextlib
import functools
import io
import itertools
import json
import math
import operator
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import tqdm
from absl import logging
from etils import epath

from hra import dims
from hra.data import audio
from hra.data.manifest import Problems, Record
from hra.errors import InputError
from hra.files import write_aside

_FOLDER = "recordings/1.0.0"
_SHARD_RECORDS = 1024
"""Utterances in an array_record file, unless a split would take too many."""
_MAX_SHARDS = 128
"""Files of a split, each of which a reader holds open."""
_AHEAD = 4
"""Recordings that each thread may have decoded before they are written."""


class Example(NamedTuple):
  """One utterance."""

  id: str
  wave_S: np.ndarray
  """float32 in [-1, 1), at `dims.SAMPLE_RATE`."""
  text: str
  """The transcript as the user wrote it."""
  task: str


class Split:
  """One split of prepared data, by position.

  Threads may share it; a copy sent to another process opens its own files.
  """

  def __init__(self, folder: epath.Path, name: str, index: Mapping[str, Any]):
    self.name = name
    self.ids: list[str] = index["ids"]
    names = index["task_names"]
    self.tasks: list[str] = [names[task] for task in index["tasks"]]
    """Of each utterance."""
    self.texts: list[str] = index["texts"]
    self.samples = np.asarray(index["samples"], np.int64)
    """Length of each utterance."""
    self._folder = folder
    self._source: Any = None
    self._lock = threading.Lock()

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, "_source": None, "_lock": None}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, index: SupportsIndex) -> Example:
    """Reads one utterance.

    Raises:
      IndexError: outside of the split.
    """
    place = operator.index(index)
    if not -len(self) <= place < len(self):
      raise IndexError(f"{place} in {len(self)} utterances of {self.name!r}")
    place %= len(self)
    record = self._reader()[place]
    return Example(
      id=self.ids[place],
      wave_S=audio.decode_int16(record["samples"]),
      text=self.texts[place],
      task=self.tasks[place],
    )

  def _reader(self) -> Any:
    with self._lock:
      if self._source is None:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(self._folder / _FOLDER)
        self._source = builder.as_data_source(split=self.name)
      return self._source


def open_split(path: str | os.PathLike[str], split: str) -> Split:
  """Opens one split of a prepared folder.

  Raises:
    InputError: the folder was not prepared, has no such split, or lacks (a part
      of) its files.
  """
  folder = epath.Path(path)
  names = split_names(folder)
  if split not in names:
    raise InputError(
      folder,
      expected=f"a split {split!r}",
      got=f"only {', '.join(names)}",
    )
  file = folder / f"index-{split}.json"
  try:
    index = json.loads(file.read_text())
  except json.JSONDecodeError as error:
    raise InputError(
      file,
      expected="an index",
      got=f"no JSON ({error.msg})",
      fix=_again(folder),
    ) from error
  for name, size in index["files"].items():
    shard = folder / _FOLDER / name
    got = shard.stat().length if shard.exists() else None
    if got != size:
      raise InputError(
        shard,
        expected=f"{size} bytes",
        got="no such file" if got is None else f"{got}",
        fix=f"the data are incomplete: {_again(folder)}",
      )
  return Split(folder, split, index)


def split_names(path: str | os.PathLike[str]) -> list[str]:
  """The splits of a prepared folder.

  Raises:
    InputError: there is no such folder, or it holds no prepared data.
  """
  folder = epath.Path(path)
  got = "no prepared data in it" if folder.exists() else "no such folder"
  files = sorted(folder.glob("index-*.json")) if folder.is_dir() else []
  if not files:
    raise InputError(
      folder, expected="prepared data", got=got, fix=_again(folder)
    )
  return [file.stem.removeprefix("index-") for file in files]


def _again(folder: epath.Path) -> str:
  return f"make them by `hra prepare --source=MANIFEST --out={folder}`"


def write(
  out: str | os.PathLike[str],
  splits: Mapping[str, Sequence[Record]],
  *,
  jobs: int = 2,
) -> collections.Counter[int]:
  """Decodes records and writes them, in order, into an existing folder.

  The index files are written last: a folder without them is no prepared data.

  Args:
    out: the folder; of TFDS datasets it must hold none.
    splits: at least one record each.
    jobs: threads that decode (the libraries release the interpreter's lock).

  Returns:
    How many recordings had which sampling rate.

  Raises:
    InputError: every recording that can't be used, together.
  """
  folder = epath.Path(out)
  writer = _Writer(folder, jobs=jobs, total=sum(map(len, splits.values())))
  with writer.progress:
    writer.write(splits)
  writer.problems.raise_any()
  for split, records in splits.items():
    index = _index(folder, split, records, writer.samples[split])
    text = json.dumps(index, ensure_ascii=False)
    write_aside(folder / f"index-{split}.json", text.encode())
  return writer.rates


class _Writer:
  """Feeds TFDS with decoded recordings and remembers what passed."""

  def __init__(self, folder: epath.Path, *, jobs: int, total: int):
    self.samples: dict[str, list[int]] = collections.defaultdict(list)
    self.rates: collections.Counter[int] = collections.Counter()
    self.problems = Problems(folder, expected="readable recordings")
    self.progress = tqdm.tqdm(
      total=total, desc="decoding", unit="rec", disable=None
    )
    self._folder = folder
    self._jobs = jobs

  def write(self, splits: Mapping[str, Sequence[Record]]) -> None:
    from hra.data.recordings import Recordings

    with contextlib.ExitStack() as stack:
      downloads = stack.enter_context(tempfile.TemporaryDirectory())
      # TFDS announces its work on the standard output, and logs it.
      stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
      stack.callback(logging.set_verbosity, logging.get_verbosity())
      logging.set_verbosity(logging.WARNING)
      builder = Recordings(
        data_dir=os.fspath(self._folder),
        shards={
          split: self._shards(split, records)
          for split, records in splits.items()
        },
      )
      builder.download_and_prepare(download_dir=downloads)

  def _shards(
    self, split: str, records: Sequence[Record]
  ) -> list[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]:
    size = max(_SHARD_RECORDS, math.ceil(len(records) / _MAX_SHARDS))
    starts = range(0, len(records), size)

    return [
      functools.partial(self._examples, split, records[start : start + size])
      for start in starts
    ]

  def _examples(
    self, split: str, records: Sequence[Record]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    decoded = _in_order(_load, records, jobs=self._jobs)
    for record, loaded in zip(records, decoded, strict=True):
      self.progress.update()
      if isinstance(loaded, InputError):
        self.problems.add(loaded)
      if self.problems:
        continue
      self.rates[loaded.source_rate] += 1
      self.samples[split].append(len(loaded.wave_S))
      example = {
        "id": record.id,
        "task": record.task,
        "text": record.text,
        "samples": audio.encode_int16(loaded.wave_S),
      }
      yield record.id, example
      # Written by now; TFDS keeps the dict until the shard ends, to count.
      example.clear()


def _load(record: Record) -> audio.Recording | InputError:
  try:
    return audio.read(
      record.path,
      offset=record.offset or 0.0,
      duration=None if record.offset is None else record.duration,
    )
  except InputError as error:
    return InputError(
      record.where or record.id, expected="a recording", got=str(error)
    )


def _in_order(
  function: Callable[[Any], Any], items: Iterable[Any], *, jobs: int
) -> Iterator[Any]:
  """`map` in threads, with a bounded number of results waiting."""
  items = iter(items)
  with futures.ThreadPoolExecutor(jobs) as pool:
    waiting = collections.deque(
      pool.submit(function, item)
      for item in itertools.islice(items, _AHEAD * jobs)
    )
    while waiting:
      yield waiting.popleft().result()
      for item in itertools.islice(items, 1):
        waiting.append(pool.submit(function, item))


def _index(
  folder: epath.Path,
  split: str,
  records: Sequence[Record],
  samples: Sequence[int],
) -> dict[str, Any]:
  names = sorted({record.task for record in records})
  places = {name: place for place, name in enumerate(names)}
  shards = sorted((folder / _FOLDER).glob(f"recordings-{split}.array_record-*"))
  return {
    "sample_rate": dims.SAMPLE_RATE,
    "files": {shard.name: shard.stat().length for shard in shards},
    "task_names": names,
    "ids": [record.id for record in records],
    "tasks": [places[record.task] for record in records],
    "texts": [record.text for record in records],
    "samples": list(samples),
  }
