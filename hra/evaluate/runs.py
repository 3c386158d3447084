"""A finished run's folder -> one value that reports are made from.

Nothing here is trusted: a file that is missing or can't be read is one clear
line that names it and the command that makes it.
"""

import dataclasses
import json
import math
from typing import Any

from etils import epath

from hra.config import EvalConfig
from hra.config_tree import from_dict
from hra.errors import InputError
from hra.evaluate.metrics import Transcript
from hra.files import read_json

_TRAIN = "`hra train` makes it; let it finish"
_EVALUATE = "`hra evaluate --workdir={run}` makes it"
_KEYS = (
  "split",
  "adapter",
  "normalizer",
  "scoring",
  "parameters",
  "overall",
  "tasks",
)
MADE_BY = {
  "config.json": _TRAIN,
  "tasks.json": _TRAIN,
  "metrics.jsonl": _TRAIN,
  "results.json": _EVALUATE,
  "transcripts.jsonl": _EVALUATE,
}
"""The files of a finished run, and the way to get each."""


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run's folder holds."""

  path: epath.Path
  config: dict[str, Any]
  tasks: int
  """How many tasks were trained."""
  metrics: list[dict[str, Any]]
  results: dict[str, Any]
  transcripts: list[Transcript]

  @property
  def name(self) -> str:
    return self.path.name

  @property
  def scoring(self) -> EvalConfig:
    """How the results were scored."""
    return from_dict(
      EvalConfig, self.results["scoring"], path=f"{self.path}/results.json"
    )

  def curve(self, key: str) -> list[tuple[float, float]]:
    """(step, value) of a logged figure, by step; a resumed step's last value.

    Lines without the key and values that are not finite are left out.
    """
    points = {
      line["step"]: line[key]
      for line in self.metrics
      if _finite(line.get("step")) and _finite(line.get(key))
    }
    return sorted(points.items())


def check_run(path: epath.PathLike) -> None:
  """Sees that a run's folder holds all that a report needs.

  Raises:
    InputError: naming the first missing file and the command that makes it.
  """
  folder = epath.Path(path)
  if not folder.is_dir():
    raise InputError(
      folder,
      expected="a run's folder",
      got="no such folder",
      fix="give the folder that `hra train` wrote",
    )
  for name, made_by in MADE_BY.items():
    if not (folder / name).exists():
      raise InputError(
        folder / name,
        expected="a file",
        got="none",
        fix=made_by.format(run=folder),
      )


def read_run(path: epath.PathLike) -> Run:
  """Reads a finished run.

  Raises:
    InputError: naming the file (and line) that is missing or damaged.
  """
  check_run(path)
  folder = epath.Path(path)
  again = f"run `hra evaluate --workdir={folder}` again"
  results = read_json(folder / "results.json", keys=_KEYS, fix=again)
  return Run(
    path=folder,
    config=read_json(folder / "config.json"),
    tasks=len(read_json(folder / "tasks.json", keys=("tasks",))["tasks"]),
    metrics=_metrics(folder / "metrics.jsonl"),
    results=results,
    transcripts=read_transcripts(folder / "transcripts.jsonl"),
  )


def read_transcripts(path: epath.PathLike) -> list[Transcript]:
  """A run's `transcripts.jsonl`: one Transcript per line, as its fields.

  Raises:
    InputError: naming the line that is not a Transcript.
  """
  transcripts = []
  for number, line in _lines(epath.Path(path)):
    try:
      transcripts.append(Transcript(**json.loads(line)))
    except (json.JSONDecodeError, TypeError) as error:
      raise InputError(
        f"{path}:{number}",
        expected="the fields of a Transcript as JSON",
        got=str(error),
        fix=f"run `hra evaluate --workdir={epath.Path(path).parent}` again",
      ) from error
  return transcripts


def _metrics(path: epath.Path) -> list[dict[str, Any]]:
  """A last line that a killed run left unfinished is dropped."""
  lines = _lines(path)
  parsed = []
  for number, line in lines:
    try:
      parsed.append(json.loads(line))
    except json.JSONDecodeError as error:
      if number == lines[-1][0]:
        break
      raise InputError(
        f"{path}:{number}", expected="a line of JSON", got=str(error)
      ) from error
  return parsed


def _lines(path: epath.Path) -> list[tuple[int, str]]:
  # Only "\n" ends a line of JSON: a transcript may hold U+2028.
  return [
    (number, line)
    for number, line in enumerate(_text(path).split("\n"), 1)
    if line.strip()
  ]


def _text(path: epath.Path) -> str:
  try:
    return path.read_bytes().decode("utf-8")
  except UnicodeDecodeError as error:
    raise InputError(path, expected="UTF-8 text", got=str(error)) from error


def _finite(value: object) -> bool:
  return isinstance(value, int | float) and math.isfinite(value)
