"""What every corpus becomes before audio is decoded: records, and problems.

Enters: nothing; this is the common language of `hra.data.corpora`, which reads
manifests and folders, and `hra.data.prepare`, which makes data of them.
"""

import dataclasses
from collections.abc import Iterator

from hra.errors import InputError

_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Record:
  """One utterance before it is decoded."""

  id: str
  path: str
  """Of the audio file; absolute, or relative to the working folder; or a URL."""
  text: str
  """The transcript as the user wrote it."""
  task: str
  duration: float | None = None
  """Seconds, as the corpus says."""
  offset: float | None = None
  """Seconds into the file where the utterance starts; None: all of the file."""
  session: str | None = None
  """The sitting in which it was recorded, where the corpus knows."""
  split: str | None = None
  """train, dev, test or another name, where the corpus is divided already."""
  labels: int | None = None
  """Labels of the transcript, where a tokenizer has counted them."""
  where: str = ""
  """`file:line`, for messages."""


class Problems:
  """Collects what is wrong, so that a user can correct it all at once."""

  def __init__(self, where: object, *, expected: str):
    self._where = where
    self._expected = expected
    self._errors: list[InputError] = []

  def __len__(self) -> int:
    return len(self._errors)

  def __iter__(self) -> Iterator[InputError]:
    """In the order of files and lines."""
    return iter(sorted(self._errors, key=_place))

  def add(self, error: InputError) -> None:
    self._errors.append(error)

  def raise_any(self, *, fix: str = "") -> None:
    """Raises the only problem as it is, or several as one list.

    Args:
      fix: what can be done about all of them.

    Raises:
      InputError: the first problems, one a line, and how many there are.
    """
    if not self._errors:
      return
    if len(self._errors) == 1:
      (only,) = self._errors
      if fix:
        raise InputError(
          only.where,
          expected=only.expected,
          got=only.got,
          fix=f"{only.fix}; {fix}" if only.fix else fix,
        ) from only
      raise only
    count = len(self._errors)
    first = f"the first {_SHOWN}" if count > _SHOWN else "correct these"
    lines = "".join(f"\n  {error}" for error in [*self][:_SHOWN])
    raise InputError(
      self._where,
      expected=self._expected,
      got=f"{count} problems",
      fix=f"{first}:{lines}" + (f"\n{fix}" if fix else ""),
    )


def repeated(where: str, *, what: str, shown: str, first: str) -> InputError:
  """Says that something at `where` stands at `first` already."""
  return InputError(
    where,
    expected=f"a new {what}",
    got=f"{shown} again",
    fix=f"see {first}",
  )


def _place(error: InputError) -> tuple[str, int]:
  file, _, line = error.where.rpartition(":")
  return (file, int(line)) if line.isdecimal() else (error.where, 0)
