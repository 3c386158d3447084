"""Prepared data: recordings in random-access files, and an index beside them.

Enters: records, and the files in which `hra.data.shards` put their recordings, by
split. Leaves: a folder with

    recordings/1.0.0/    a TFDS dataset (array_record; int16 samples at 16 kHz)
    index-SPLIT.json     ids, tasks, texts, lengths and files, in columns

and, from `open_split`, a `Split` that is read by position. What a batch plan
needs is in the index, so that opening a split reads no audio; `tfds` is imported
at the first read.
"""

import hashlib
import json
import operator
import os
import pathlib
import shutil
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from etils import epath

from hra import dims
from hra.data import audio, place
from hra.data.records import Record
from hra.data.shards import Shard
from hra.errors import InputError
from hra.files import storage, write_aside

_NAME = "recordings"
_VERSION = "1.0.0"
_FORMAT = "array_record"
_DESCRIPTION = ("dataset_info.json", "features.json")
"""What TFDS writes beside the recordings."""
_FOLDER = f"{_NAME}/{_VERSION}"


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
    self._files: dict[str, int] = index["files"]
    self._version = "\n".join(self.ids).encode()
    self._places = np.arange(len(self.ids))
    self._source: Any = None
    self._lock = threading.Lock()

  def of(self, tasks: Collection[str]) -> "Split":
    """The same split with the utterances of some tasks only."""
    chosen = [i for i, task in enumerate(self.tasks) if task in tasks]
    some = Split.__new__(Split)
    some.__setstate__(self.__getstate__())
    some.ids = [self.ids[i] for i in chosen]
    some.tasks = [self.tasks[i] for i in chosen]
    some.texts = [self.texts[i] for i in chosen]
    some.samples = self.samples[chosen]
    some._places = self._places[chosen]
    return some

  def fingerprint(self) -> str:
    """Of who says what, for how long: of all that plans and scores depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for column in (self.ids, self.tasks, self.texts):
      digest.update(json.dumps(column).encode())
    digest.update(self.samples.tobytes())
    return digest.hexdigest()

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
    position = operator.index(index)
    if not -len(self) <= position < len(self):
      raise IndexError(f"{position} in {len(self)} utterances of {self.name!r}")
    position %= len(self)
    record = self._reader()[int(self._places[position])]
    return Example(
      id=self.ids[position],
      wave_S=audio.decode_int16(record["samples"]),
      text=self.texts[position],
      task=self.tasks[position],
    )

  def _reader(self) -> Any:
    with self._lock:
      if self._source is None:
        import tensorflow_datasets as tfds

        folder = place.local_files(
          self._folder,
          {f"{_FOLDER}/{name}": size for name, size in self._files.items()},
          version=self._version,
        )
        builder = tfds.builder_from_directory(folder / _FOLDER)
        self._source = builder.as_data_source(split=self.name)
      return self._source


def heard_whole(
  split: Split, bounds: Sequence[int], *, most: int
) -> tuple[int, ...]:
  """Ends of length buckets, in samples, within what a backbone hears.

  Args:
    most: samples of a recording that it hears whole; 0 is any number.

  Raises:
    InputError: recordings of the split are longer than that.
  """
  if not most:
    return tuple(bounds)
  longer = split.samples[split.samples > most]
  if len(longer):
    seconds = most / dims.SAMPLE_RATE
    raise InputError(
      f"split {split.name!r}",
      expected=f"recordings of at most {seconds:g} s, which is all that the "
      "backbone hears",
      got=f"{len(longer):,} of {len(split):,} that are longer, up to "
      f"{longer.max() / dims.SAMPLE_RATE:.3f} s",
      # A limit there is no finer than that.
      fix="cut them, or prepare the data without them: hra prepare "
      f"--max_seconds={seconds - 0.01:g} --skip_bad",
    )
  return tuple(sorted({min(bound, most) for bound in bounds}))


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
    with storage(file, expected="an index"):
      text = file.read_text()
    index = json.loads(text)
  except json.JSONDecodeError as error:
    raise InputError(
      file,
      expected="an index",
      got=f"no JSON ({error.msg})",
      fix=_again(folder),
    ) from error
  for name, size in index["files"].items():
    shard = folder / _FOLDER / name
    with storage(shard, expected="a file of prepared data"):
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
  with storage(folder, expected="prepared data"):
    got = "no prepared data in it" if folder.exists() else "no such folder"
    files = sorted(folder.glob("index-*.json")) if folder.is_dir() else []
  if not files:
    raise InputError(
      folder, expected="prepared data", got=got, fix=_again(folder)
    )
  return [file.stem.removeprefix("index-") for file in files]


def _again(folder: epath.Path) -> str:
  return f"make them by `hra prepare --source=MANIFEST --out={folder}`"


def assemble(
  folder: str | os.PathLike[str],
  shards: Mapping[str, Sequence[Shard]],
  records: Mapping[str, Sequence[Record]],
) -> None:
  """Makes prepared data of decoded recordings, in an existing local folder.

  The shards' files are linked, or copied where that can't be, and stay where they
  are. The index files are written last: a folder without them is no prepared
  data. A split with no usable recording is left out.

  Args:
    folder: holds no prepared data yet.
    shards: of each split, in order.
    records: of each split; the shards speak of their places.

  Raises:
    StorageError: the disk refuses.
  """
  folder = pathlib.Path(folder)
  recordings = folder / _FOLDER
  with storage(recordings, expected="a folder that can be made"):
    recordings.mkdir(parents=True, exist_ok=True)
  files = {
    split: filled
    for split, of_split in shards.items()
    if (filled := [shard for shard in of_split if shard.places])
  }
  indexes = {
    split: _index(
      records[split],
      of_split,
      names=_place(recordings, split, of_split),
    )
    for split, of_split in files.items()
  }
  _describe(recordings, indexes, files)
  described = {
    name: (recordings / name).stat().st_size for name in _DESCRIPTION
  }
  for split, index in indexes.items():
    whole = {**index, "files": index["files"] | described}
    text = json.dumps(whole, ensure_ascii=False)
    write_aside(folder / f"index-{split}.json", text.encode())


def _place(
  folder: pathlib.Path, split: str, shards: Sequence[Shard]
) -> dict[str, int]:
  """Gives files the names that TFDS expects; returns the bytes of each."""
  sizes = {}
  for number, shard in enumerate(shards):
    assert shard.file is not None
    name = f"{_NAME}-{split}.{_FORMAT}-{number:05d}-of-{len(shards):05d}"
    target = folder / name
    with storage(target, expected="a file that can be written"):
      target.unlink(missing_ok=True)
      try:
        target.hardlink_to(shard.file)
      except OSError:  # Another disk, or a file system without links.
        shutil.copyfile(shard.file, target)
      sizes[name] = target.stat().st_size
  return sizes


def _describe(
  folder: pathlib.Path,
  indexes: Mapping[str, Mapping[str, Any]],
  shards: Mapping[str, Sequence[Shard]],
) -> None:
  """Writes what TFDS wants to know, without a builder: that would write data.

  Any reader of TFDS understands the files without this package.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import dataset_info, splits

  info = tfds.core.DatasetInfo(
    builder=dataset_info.DatasetIdentity(
      name=_NAME,
      version=tfds.core.Version(_VERSION),
      data_dir=os.fspath(folder),
      module_name="",
    ),
    description="Transcribed utterances of tasks, 16 kHz mono.",
    features=tfds.features.FeaturesDict(
      {
        "id": tfds.features.Text(),
        "task": tfds.features.Text(),
        "text": tfds.features.Text(),
        # As raw bytes: 0.3 ms a read, where int64 lists take 4.5.
        "samples": tfds.features.Tensor(
          shape=(None,), dtype=np.int16, encoding="bytes"
        ),
      }
    ),
    disable_shuffling=True,
  )
  info.set_file_format(_FORMAT)
  info.set_splits(
    splits.SplitDict(
      [
        splits.SplitInfo(
          name=split,
          shard_lengths=[len(shard.places) for shard in shards[split]],
          num_bytes=sum(index["files"].values()),
        )
        for split, index in indexes.items()
      ]
    )
  )
  with storage(folder, expected="a folder that can be written to"):
    info.write_to_directory(folder)


def _index(
  records: Sequence[Record],
  shards: Sequence[Shard],
  *,
  names: Mapping[str, int],
) -> dict[str, Any]:
  kept = [records[place] for shard in shards for place in shard.places]
  tasks = sorted({record.task for record in kept})
  places = {task: place for place, task in enumerate(tasks)}
  return {
    "sample_rate": dims.SAMPLE_RATE,
    "files": names,
    "task_names": tasks,
    "ids": [record.id for record in kept],
    "tasks": [places[record.task] for record in kept],
    "texts": [record.text for record in kept],
    "samples": [count for shard in shards for count in shard.samples],
  }
