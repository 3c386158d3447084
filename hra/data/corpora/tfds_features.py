"""Which feature of a TFDS dataset is what.

Enters: a dataset's description. Leaves: the names of its audio, transcript, task,
id and session, and the sampling rate; the values of an example as plain Python.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hra.data.corpora.fields import DEFAULT, Fields
from hra.errors import InputError

_AUDIO = ("speech", "audio", "voice", "samples", "wave")
"""Names of tensors that hold audio; features of type `Audio` may have any."""
_TEXT = (
  "sentence",
  "transcription",
  "transcript",
  "normalized_text",
  "text_normalized",
)
_SPEAKER = ("speaker_id", "speaker", "client_id", "user_id")
_CHAPTER = "chapter_id"


@dataclasses.dataclass(frozen=True)
class Columns:
  """Which feature is what; None: there is none."""

  audio: str
  text: str
  task: str
  id: str | None
  session: str | None
  speaker: str | None
  chapter: str | None
  rate: int | None
  """Hertz; None: files say it."""
  suffix: str | None
  """Of audio that is stored as the bytes of a file; None: it is samples."""


def is_audio(feature: Any) -> bool:
  """Whether a feature is of the type `tfds.features.Audio`."""
  import tensorflow_datasets as tfds

  return isinstance(feature, tfds.features.Audio)


def is_file(feature: Any) -> bool:
  """Whether an `Audio` is stored as the bytes of a file (`lazy_decode`)."""
  return feature.get_serialized_info().shape == ()


def columns(
  info: Any, *, source: str, fields: Fields, hertz: int | None
) -> Columns:
  """What the features of a dataset are.

  Args:
    info: `tfds.core.DatasetInfo`.
    source: for messages.
    fields: names that the user gave.
    hertz: the sampling rate, where the dataset states none.

  Raises:
    InputError: a feature that is needed isn't there, or no sampling rate.
  """
  features = info.features
  audio = _first(
    [fields.audio, *filter(lambda n: _holds_audio(n, features[n]), features)],
    features,
  )
  text = _first(
    [fields.text, *(_TEXT if fields.text == DEFAULT.text else ())], features
  )
  speaker = _first(_SPEAKER, features)
  task = fields.task if fields.task in features else None
  if fields.task is None:
    task = _first(["task"], features) or speaker
  if audio is None or text is None or task is None:
    needed = {
      "audio": audio,
      fields.text: text,
      fields.task or "speaker_id": task,
    }
    raise InputError(
      source,
      expected=" and ".join(n for n, found in needed.items() if found is None)
      + " among its features",
      got=", ".join(features),
      fix="a task and a transcript may have other names: task_field, text_field",
    )
  encoded = is_audio(features[audio]) and is_file(features[audio])
  return Columns(
    audio=audio,
    text=text,
    task=task,
    id=_first(["id"], features),
    session=_first([fields.session], features),
    speaker=speaker,
    chapter=_first([_CHAPTER], features) if speaker else None,
    rate=None
    if encoded
    else _rate(info, features[audio], source=source, hertz=hertz),
    suffix=".audio" if encoded else None,
  )


def values_of(
  example: Mapping[str, Any],
  columns: Columns,
  features: Mapping[str, Any],
  *,
  where: str,
) -> dict[str, Any]:
  """What an example says beside its audio: str, int; class labels by name.

  Raises:
    InputError: a string isn't UTF-8.
  """
  names = {
    columns.text,
    columns.task,
    columns.id,
    columns.session,
    columns.speaker,
    columns.chapter,
  }
  return {
    name: _plain(example[name], features[name], field=name, where=where)
    for name in names
    if name is not None
  }


def _plain(value: Any, feature: Any, *, field: str, where: str) -> Any:
  import tensorflow_datasets as tfds

  if isinstance(value, np.ndarray | np.generic):
    value = value.item() if value.ndim == 0 else value.tolist()
  if isinstance(feature, tfds.features.ClassLabel):
    known = 0 <= value < feature.num_classes
    return feature.int2str(value) if known else None
  if not isinstance(value, bytes):
    return value
  try:
    return value.decode("utf-8")
  except UnicodeDecodeError as error:
    raise InputError(
      where,
      expected=f"{field!r} in UTF-8",
      got=f"byte 0x{value[error.start]:02X}",
    ) from None


def _first(names: Iterable[str], features: Mapping[str, Any]) -> str | None:
  return next((name for name in names if name in features), None)


def _holds_audio(name: str, feature: Any) -> bool:
  if is_audio(feature):
    return True
  shape = getattr(feature, "shape", None)
  return (
    name in _AUDIO
    and isinstance(shape, tuple)
    and len(shape) in (1, 2)
    and np.dtype(feature.np_dtype).kind in "iuf"
  )


def _rate(info: Any, feature: Any, *, source: str, hertz: int | None) -> int:
  """The sampling rate that the dataset states, or else the user.

  Raises:
    InputError: nobody does, or both do and differ.
  """
  stated = getattr(feature, "sample_rate", None)
  if not stated and isinstance(info.metadata, Mapping):
    stated = info.metadata.get("sample_rate")
  if not stated and hertz is None:
    raise InputError(
      source,
      expected="a dataset that states its sampling rate",
      got="none",
      fix=f"append it, such as {source}@48000",
    )
  if stated and hertz is not None and int(stated) != hertz:
    raise InputError(
      source, expected=f"the dataset's {stated} Hz", got=f"{hertz} Hz"
    )
  return int(stated or hertz or 0)
