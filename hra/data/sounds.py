"""Recorded noise and impulse responses -> banks of sounds, decoded once.

Enters: a folder or a manifest of recordings, or rooms to simulate. Leaves: a `Bank`,
whose samples stand in one file in $HRA_CACHE and are mapped into memory: the system
keeps what is used often and as much of it as there is room for, and all threads and
processes of a machine share it. Whatever is wrong with a recording is found before
anything trains.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from hra.config import MultistyleConfig
from hra.data import audio, by_task, rooms, sound_files
from hra.data.corpora import fields, manifest
from hra.data.records import Problems, Record
from hra.errors import InputError
from hra.files import cache_folder, read_json, storage, write_json

_VERSION = 1
"""Of what a bank's files hold."""
_SAMPLES, _INDEX = "samples.f32", "index.json"
_NOISE = audio.Limits(max_seconds=4 * 3600.0)
_RESPONSE = audio.Limits(max_seconds=10.0)


@dataclasses.dataclass(frozen=True)
class Bank:
  """Sounds one behind the other; threads may share it."""

  samples_S: np.ndarray
  """float32."""
  ends: tuple[int, ...]
  fingerprint: str
  """Of the samples."""

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, index: int) -> np.ndarray:
    """The waveform of one sound."""
    start = self.ends[index - 1] if index else 0
    return self.samples_S[start : self.ends[index]]


_NONE = Bank(np.zeros(0, np.float32), (), "")


class Sounds(NamedTuple):
  """What utterances are perturbed by; empty where nothing asks for it."""

  noise: Bank = _NONE
  responses: Bank = _NONE


def opened(config: MultistyleConfig) -> Sounds:
  """The banks that a configuration asks for, made where they aren't kept yet.

  Raises:
    InputError: no such recordings, some that can't be used (all in one list), or
      the simulator is missing.
    StorageError: the cache can't be written.
  """
  noise = responses = _NONE
  if config.noise in ("files", "either"):
    noise = recorded(config.noise_files, field="noise_files", read=_noise)
  if config.reverb == "files":
    responses = recorded(config.responses, field="responses", read=_response)
  elif config.reverb == "rooms":
    told = {**dataclasses.asdict(config.rooms), "simulator": rooms.version()}
    responses = _kept("rooms", told, lambda: rooms.responses(config.rooms))
  return Sounds(noise, responses)


def fingerprints(config: MultistyleConfig, sounds: Sounds) -> dict[str, str]:
  """Of the recordings among the sounds, by the field that names them."""
  told = {}
  if config.noise_files:
    told["noise_files"] = sounds.noise.fingerprint
  if config.responses:
    told["responses"] = sounds.responses.fingerprint
  return told


def read_parts(
  path: epath.PathLike, *, tasks: Sequence[str]
) -> dict[str, float]:
  """The noise-perturbed parts of a JSON file {task: part}; none for no path.

  Raises:
    InputError: no such file, no such JSON, or a task that is none of `tasks`.
  """
  return by_task.numbers(
    path,
    tasks=tasks,
    what="parts",
    expected="a part between 0 and 1",
    holds=lambda part: 0 <= part <= 1,
  )


def recorded(
  path: str, *, field: str, read: Callable[[Record], np.ndarray]
) -> Bank:
  """The recordings of a folder (those below it too, by name) or of a manifest.

  Args:
    path: the folder or the manifest.
    field: that names it, for messages.
    read: decodes one.

  Raises:
    InputError: there is none, or some can't be used.
  """
  where = f"config.data.multistyle.{field}"
  problems = Problems(path, expected="recordings that can be used")
  records = _records(epath.Path(path), problems=problems)
  problems.raise_any()
  if not records:
    raise InputError(
      where,
      expected=f"recordings ({', '.join(fields.AUDIO)}) in {path}",
      got="none",
    )

  def sounds() -> Iterator[np.ndarray]:
    for record in records:
      try:
        yield read(record)
      except InputError as error:
        problems.add(error)
    problems.raise_any()

  told = [
    (record.path, record.offset, record.duration, *_stamp(record))
    for record in records
  ]
  return _kept(field, told, sounds)


def _records(path: epath.Path, *, problems: Problems) -> list[Record]:
  with storage(path, expected="a folder or a manifest of recordings"):
    if not path.is_dir():
      return manifest.read_sounds(path, problems=problems)
    found = sorted(
      os.fspath(file)
      for file in _below(path)
      if file.suffix.lower() in fields.AUDIO and not file.name.startswith(".")
    )
  return [Record(id=file, path=file, text="", task="") for file in found]


def _below(folder: epath.Path) -> Iterator[epath.Path]:
  for path in folder.iterdir():
    if path.is_dir():
      yield from _below(path)
    else:
      yield path


def _stamp(record: Record) -> tuple[int, float]:
  """Size and time of a file: another one of its name is another sound."""
  try:
    with storage(record.path, expected="an audio file"):
      told = epath.Path(record.path).stat()
  except InputError:
    return 0, 0.0  # decoding it says what is wrong
  return told.length, told.mtime


def _noise(record: Record) -> np.ndarray:
  return audio.read_record(record, limits=_NOISE).wave_S


def _response(record: Record) -> np.ndarray:
  """Of one channel: the mean over microphones would be no response of the room."""
  with (
    sound_files.opened(record.path) as source,
    sound_files.decoding(source, record.path) as stream,
  ):
    channels = stream.channels
  if channels != 1:
    raise InputError(
      record.where or record.path,
      expected="an impulse response of one channel",
      got=f"{channels} channels",
      fix="export each channel as a file of its own",
    )
  return audio.read_record(record, limits=_RESPONSE).wave_S


def _kept(
  kind: str, told: object, make: Callable[[], Iterable[np.ndarray]]
) -> Bank:
  """The bank that the cache holds under what it is made of, or a new one."""
  text = json.dumps([_VERSION, kind, told], sort_keys=True)
  key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
  folder = cache_folder() / "sounds" / f"{kind}-{key}"
  if not (folder / _INDEX).exists():
    _write(folder, make())
  index = read_json(
    folder / _INDEX,
    keys=("ends", "fingerprint"),
    fix=f"delete {folder}: it is made again",
  )
  ends = tuple(index["ends"])
  samples = folder / _SAMPLES
  with storage(samples, expected="a file that can be read"):
    size = samples.stat().st_size
    if size != 4 * ends[-1]:
      raise InputError(
        samples,
        expected=f"{4 * ends[-1]:,} bytes",
        got=f"{size:,}",
        fix=f"delete {folder}: it is made again",
      )
    samples_S = np.asarray(np.memmap(samples, np.float32, mode="r"))
  return Bank(samples_S, ends, index["fingerprint"])


def _write(folder: pathlib.Path, sounds: Iterable[np.ndarray]) -> None:
  """Writes aside, then renames: nobody ever sees a part of a bank."""
  aside = folder.parent / f".{folder.name}.{os.getpid()}"
  digest = hashlib.blake2b(digest_size=16)
  ends, end = [], 0
  with storage(folder, expected="a cache that can be written ($HRA_CACHE)"):
    try:
      aside.mkdir(parents=True, exist_ok=True)
      with (aside / _SAMPLES).open("wb") as file:
        for wave_S in sounds:
          data = np.ascontiguousarray(wave_S, np.float32).tobytes()
          file.write(data)
          digest.update(len(data).to_bytes(8, "little") + data)
          end += len(wave_S)
          ends.append(end)
      write_json(
        aside / _INDEX, {"ends": ends, "fingerprint": digest.hexdigest()}
      )
      try:
        aside.rename(folder)
      except OSError:  # another process was faster
        if not (folder / _INDEX).exists():
          raise
    finally:
      shutil.rmtree(aside, ignore_errors=True)
