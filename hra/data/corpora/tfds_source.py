"""Audio corpora of TensorFlow Datasets -> recordings on disk, and records.

Enters: `tfds:NAME[/CONFIG][:VERSION][@HERTZ]`, a stock dataset or one that stands
in $TFDS_DATA_DIR (or ~/tensorflow_datasets); one that isn't prepared there yet is
downloaded and prepared. HERTZ is the sampling rate where the dataset states none.
Leaves: each utterance's audio as a WAV file (16-bit, or 32-bit float where the
dataset holds floats), and a list of `Record` that point at them.

TensorFlow is needed, and imported, only where TFDS needs it: for stock datasets,
`features.Audio` and tfrecord files. Datasets of plain features in array_record
files are read without.
"""

import contextlib
import functools
import io
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import soundfile
from etils import epath
from tqdm import tqdm

from hra import keys
from hra.data import splits
from hra.data.corpora import fields as values
from hra.data.corpora import tfds_features
from hra.data.corpora.fields import Fields
from hra.data.corpora.tfds_features import Columns
from hra.data.records import Problems, Record, repeated
from hra.errors import InputError, StorageError
from hra.files import storage, write_aside

PREFIX = "tfds:"

_SPEC = re.compile(r"(?P<name>[^@]+)(@(?P<hertz>[1-9]\d{2,6}))?")
_SHOWN = 400
"""Characters of what TFDS says."""
_LOUDEST = 2.0
"""Of float samples; what is beyond was never divided by full scale."""


def full_name(source: str) -> str:
  """A dataset with configuration and version: `tfds:librispeech/default/2.1.1`.

  Raises:
    InputError: there is no such dataset, or TensorFlow is missing.
  """
  name, hertz = _parse(source)
  builder = _builder(name, source=source)
  return f"{PREFIX}{builder.info.full_name}" + (f"@{hertz}" if hertz else "")


def read(
  source: str,
  *,
  problems: Problems,
  fields: Fields = values.DEFAULT,
  scratch: Callable[[], pathlib.Path],
) -> list[Record]:
  """The records of a dataset, their audio written under `scratch()`.

  Ids are those of the feature `id`, else SPLIT-NUMBER; class labels become their
  names. What an earlier attempt wrote is kept.

  Raises:
    InputError: there is no such dataset, it holds no speech with transcripts and
      speakers, its sampling rate is unknown, or a package is missing.
    StorageError: it can't be downloaded, read or written.
  """
  name, hertz = _parse(source)
  builder = _builder(name, source=source)
  _prepare(builder, source=source)
  columns = tfds_features.columns(
    builder.info, source=source, fields=fields, hertz=hertz
  )
  folder = scratch() / "tfds" / builder.info.full_name.replace("/", "-")
  records: list[Record] = []
  known: dict[str, str] = {}
  for split in builder.info.splits:
    examples = _examples(builder, split, columns, source=source)
    for number, example in enumerate(examples):
      where = f"{source} {split} {number}"
      try:
        record = _record(
          tfds_features.values_of(
            example, columns, builder.info.features, where=where
          ),
          columns,
          split=split,
          number=number,
          folder=folder,
          where=where,
        )
        first = known.setdefault(record.id, where)
        if first != where:
          raise repeated(
            where, what="id", shown=values.shown(record.id), first=first
          )
        _save(example[columns.audio], record, columns)
      except StorageError:
        raise
      except InputError as error:
        problems.add(error)
      else:
        records.append(record)
  return records


def _parse(source: str) -> tuple[str, int | None]:
  match = _SPEC.fullmatch(source.removeprefix(PREFIX))
  if match is None:
    raise InputError(
      source,
      expected="tfds:NAME[/CONFIG][:VERSION][@HERTZ]",
      got=values.shown(source),
    )
  hertz = match["hertz"]
  return match["name"], None if hertz is None else int(hertz)


def _builder(name: str, *, source: str) -> Any:
  import tensorflow_datasets as tfds

  folder = os.environ.get("TFDS_DATA_DIR")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no greetings
  try:
    # TFDS prints a banner where TensorFlow is missing.
    with (
      contextlib.redirect_stdout(io.StringIO()),
      contextlib.redirect_stderr(io.StringIO()),
      storage(source, expected="a dataset of TFDS"),
    ):
      return tfds.builder(
        name, data_dir=epath.Path(folder).expanduser() if folder else None
      )
  except ImportError as error:
    raise _missing(error, source=source) from error
  except tfds.core.DatasetNotFoundError as error:
    raise InputError(
      source,
      expected="a dataset of TFDS",
      got="no such name",
      fix="see tensorflow.org/datasets/catalog; one of your own belongs into "
      "$TFDS_DATA_DIR",
    ) from error
  except (ValueError, AssertionError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      source, expected="a dataset of TFDS", got=_line(error)
    ) from error


def _prepare(builder: Any, *, source: str) -> None:
  """Downloads and prepares a dataset that isn't yet; TFDS shows how far it is."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import download_manager, extractor

  if builder.is_prepared():
    return
  for feature in builder.info.features.values():
    if tfds_features.is_audio(feature) and not tfds_features.is_file(feature):
      stock = feature.encode_example
      feature.encode_example = functools.partial(_encode, feature, stock)
  try:
    with (
      contextlib.redirect_stdout(sys.stderr),
      storage(source, expected="a dataset that can be downloaded"),
    ):
      builder.download_and_prepare()
  except ImportError as error:
    raise _missing(error, source=source) from error
  except (
    AssertionError,  # as where files have to be fetched by hand
    tfds.download.DownloadError,
    download_manager.NonMatchingChecksumError,
    extractor.ExtractError,
    extractor.UnsafeArchiveError,
  ) as error:
    raise InputError(
      source, expected="a dataset that can be downloaded", got=_line(error)
    ) from error


def _encode(feature: Any, stock: Callable[[Any], Any], audio: Any) -> Any:
  """`Audio.encode_example` by libsndfile; TFDS wants pydub and ffmpeg for it.

  The samples are those that other corpora's recordings give.
  """
  if isinstance(audio, np.ndarray | list):
    return stock(audio)
  if isinstance(audio, str | os.PathLike):
    data = epath.Path(audio).read_bytes()
  else:
    data = audio.read()
    audio.seek(0)
  try:
    samples_SC, _ = soundfile.read(
      io.BytesIO(data), dtype="int16", always_2d=True
    )
  except soundfile.LibsndfileError:
    return stock(audio)
  if len(feature.shape) == 1:
    samples_SC = np.rint(samples_SC.mean(axis=1))
  return stock(samples_SC.astype(feature.np_dtype))


def _examples(
  builder: Any, split: str, columns: Columns, *, source: str
) -> Iterator[Mapping[str, Any]]:
  """The examples of a split in the order of its files."""
  import tensorflow_datasets as tfds

  decoders = None
  if columns.suffix:
    decoders = {columns.audio: tfds.decode.SkipDecoding()}
  formats = tfds.core.file_adapters.FileFormat.with_random_access()
  if builder.info.file_format in formats:
    examples = _from_arrays(builder, split, decoders, source=source)
  else:
    examples = _from_tensorflow(builder, split, decoders, source=source)
  total = builder.info.splits[split].num_examples
  yield from tqdm(
    examples, total=total, desc=f"copying {split}", unit="rec", disable=None
  )


def _from_arrays(
  builder: Any, split: str, decoders: Any, *, source: str
) -> Iterator[Mapping[str, Any]]:
  try:
    with storage(builder.data_path, expected="files of a TFDS dataset"):
      examples = builder.as_data_source(split=split, decoders=decoders)
      for index in range(len(examples)):
        yield examples[index]
  except ImportError as error:
    raise _missing(error, source=source) from error
  except RuntimeError as error:  # array_record's
    raise _damaged(builder, error, source=source) from error


def _from_tensorflow(
  builder: Any, split: str, decoders: Any, *, source: str
) -> Iterator[Mapping[str, Any]]:
  import tensorflow_datasets as tfds

  try:
    import tensorflow as tf
  except ImportError as error:
    raise _missing(error, source=source) from error
  with contextlib.suppress(RuntimeError):  # it runs already
    tf.config.set_visible_devices([], "GPU")  # their memory is JAX's
  try:
    yield from tfds.as_numpy(
      builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders=decoders,
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
      )
    )
  except tf.errors.OpError as error:
    raise _damaged(builder, error, source=source) from error


def _record(
  example: Mapping[str, Any],
  columns: Columns,
  *,
  split: str,
  number: int,
  folder: pathlib.Path,
  where: str,
) -> Record:
  def name(column: str | None) -> str | None:
    if column is None:
      return None
    return values.name(example.get(column), field=column, where=where)

  identity = name(columns.id) or f"{split}-{number}"
  session, chapter = name(columns.session), name(columns.chapter)
  if session is None and chapter is not None:
    session = f"{name(columns.speaker)}-{chapter}"
  file = f"{keys.stable_hash(identity):016x}{columns.suffix or '.wav'}"
  return Record(
    id=identity,
    path=os.fspath(folder / file[:2] / file),
    text=values.transcript(
      example.get(columns.text), field=columns.text, where=where
    ),
    task=values.name(
      example.get(columns.task), field=columns.task, where=where
    ),
    session=session,
    split=splits.known_as(split),
    where=where,
  )


def _save(audio: Any, record: Record, columns: Columns) -> None:
  """Writes a recording, unless it is there."""
  path = pathlib.Path(record.path)
  with storage(path, expected="room for the recordings"):
    if path.exists():
      return
    path.parent.mkdir(parents=True, exist_ok=True)
  if columns.suffix:
    write_aside(path, bytes(audio))
    return
  samples_SC = np.asarray(audio)
  low, high = -32768.0, 32767.0
  is_float = samples_SC.dtype.kind == "f"
  if is_float:
    low, high = -_LOUDEST, _LOUDEST
  if not samples_SC.size:
    raise InputError(record.where, expected="some samples", got="none")
  if samples_SC.min() < low or samples_SC.max() > high:
    raise InputError(
      record.where,
      expected="samples as 16-bit integers, or as floats in [-1, 1]",
      got=f"{samples_SC.dtype} up to {np.abs(samples_SC).max():g}",
    )
  file = io.BytesIO()
  soundfile.write(
    file,
    samples_SC.astype(np.float32 if is_float else np.int16),
    columns.rate,
    format="WAV",
    subtype="FLOAT" if is_float else "PCM_16",
  )
  write_aside(path, file.getvalue())


def _missing(error: ImportError, *, source: str) -> InputError:
  cause: BaseException | None = error
  name = None
  while cause is not None and name is None:
    name = getattr(cause, "name", None)
    cause = cause.__cause__ or cause.__context__
  if name is None:
    return InputError(source, expected="what TFDS needs", got=_line(error))
  package = name.split(".")[0]
  command = "'hra[tf]'" if package == "tensorflow" else package
  return InputError(
    source,
    expected=f"the package {package}, which TFDS needs for this dataset",
    got="none",
    fix=f"pip install {command.replace('_', '-')}",
  )


def _damaged(builder: Any, error: Exception, *, source: str) -> InputError:
  return InputError(
    source,
    expected=f"readable files in {builder.data_path}",
    got=_line(error),
    fix="delete that folder, so that it is made again",
  )


def _line(error: BaseException) -> str:
  """What an exception says, as one line."""
  text = " ".join(str(error).split()) or type(error).__name__
  return textwrap.shorten(text, _SHOWN, placeholder=" ...")
