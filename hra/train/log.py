"""Lines of metrics -> metrics.jsonl and TensorBoard events.

A line that `write` has returned from is on the disk (or in the bucket). All is
written by the thread that trains, so that a full disk is an error of its own
instead of a queue that nobody empties.
"""

import io
import json
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from etils import epath

from hra import processes
from hra.files import is_remote, storage, write_aside

DEV_WER = "dev_wer"
"""What an evaluation of the dev split adds to metrics.jsonl."""


class MetricsLog:
  """metrics.jsonl and TensorBoard events; lines after `position` are dropped.

  What a killed job wrote after its last checkpoint is written again. Of several
  processes the first writes.

  Raises:
    hra.errors.StorageError: the run's folder can't be read or written.
  """

  def __init__(self, workdir: epath.Path, position: int):
    self._scored: set[float] = set()
    if not processes.is_first():
      return
    path = workdir / "metrics.jsonl"
    with storage(path, expected="a file that can be read"):
      lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= position]
    self._scored = {_step_of(line) for line in kept if DEV_WER in line}
    self._lines = _Growing(path, "".join(f"{line}\n" for line in kept).encode())
    self._events = _Events(workdir / "tensorboard", purge_step=position + 1)

  def scored(self, position: int) -> bool:
    """Whether the dev figures of a step are written already."""
    return position in self._scored

  def write(self, line: Mapping[str, Any]) -> None:
    """Adds a line; a number that JSON doesn't have (NaN, infinity) is null."""
    if not processes.is_first():
      return
    line = {
      name: None
      if isinstance(value, float) and not math.isfinite(value)
      else value
      for name, value in line.items()
    }
    self._lines.append((json.dumps(line, allow_nan=False) + "\n").encode())
    if DEV_WER in line:
      self._scored.add(line["step"])
    self._events.write(
      line["step"],
      {
        name: value
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float)
      },
    )


class _Growing:
  """A file that grows; where files can't (a bucket), it is written anew."""

  def __init__(self, path: epath.Path, start: bytes):
    self._path = path
    self._held = start if is_remote(path) else b""
    write_aside(path, start)

  def append(self, data: bytes) -> None:
    if is_remote(self._path):
      self._held += data
      write_aside(self._path, self._held)
      return
    with (
      storage(self._path, expected="a file that can be written"),
      self._path.open("ab") as file,
    ):
      file.write(data)
      file.flush()
      os.fsync(file.fileno())  # some systems say only here that they are full


class _Events:
  """Scalars as a TensorBoard event file: TFRecords of Event messages."""

  def __init__(self, folder: epath.Path, *, purge_step: int):
    from tensorboard.compat.proto import event_pb2  # leaves: slow to import
    from tensorboard.summary.writer.record_writer import RecordWriter

    self._new = event_pb2.Event
    self._writer = RecordWriter
    with storage(folder, expected="a folder that can be made"):
      folder.mkdir(parents=True, exist_ok=True)
    name = (
      f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
      f".{os.getpid()}"
    )
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    # A start at a step hides what earlier files hold from that step on.
    self._file = _Growing(
      folder / name,
      self._record(file_version="brain.Event:2")
      + self._record(step=purge_step, session_log=start),
    )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    values = [
      {"tag": name, "simple_value": value} for name, value in scalars.items()
    ]
    self._file.append(self._record(step=step, summary={"value": values}))

  def _record(self, **fields: Any) -> bytes:
    event = self._new(wall_time=time.time(), **fields)
    record = io.BytesIO()
    self._writer(record).write(event.SerializeToString())
    return record.getvalue()


def _step_of(line: str) -> float:
  try:
    return json.loads(line)["step"]
  except json.JSONDecodeError:  # the last line of a killed job
    return float("inf")
