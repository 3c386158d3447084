"""What is wrong with a store or a Submodel -> the engine's errors, which name nobody.

Logs tell what was expected and what was found: neither says a path or another person's
name. The cause has both, for logs that may name them.
"""

import logging
import os.path
from collections.abc import Iterable

from hra.errors import InputError, StorageError
from hra.serve.interface import BadSubmodel, StoreGone
from hra.submodels import OtherTask, task_of

_LOG = logging.getLogger(__name__)


class Damaged:
  """Warns of files that are no whole Submodels, of each once while it stays so."""

  def __init__(self) -> None:
    self._known: set[str] = set()

  def warn(self, refused: Iterable[InputError]) -> None:
    """Of those of a listing. `hra.serve.http.logs` says of whom, if it may."""
    found = {str(error): error for error in refused}
    for text in found.keys() - self._known:
      error = found[text]
      task = task_of(os.path.basename(error.where))
      told = bad(f"Submodel of task {task!r}", error)
      told.__cause__ = error
      _LOG.warning(
        "a file of the store is no whole Submodel",
        extra={"error": told, "task": task},
      )
    self._known = set(found)


def gone(where: str, error: StorageError | OSError) -> StoreGone:
  """It can't be reached."""
  if isinstance(error, StorageError):
    got = error.got if error.__cause__ is None else _said(error.__cause__)
  else:
    got = _said(error)
  return StoreGone(
    where, expected="a store that answers", got=got, fix="try later"
  )


def bad(where: str, error: InputError) -> BadSubmodel:
  """It is damaged, or another's."""
  expected, got, fix = error.expected, error.got, error.fix
  if isinstance(error, OtherTask):
    expected, got = "a Submodel of that name", "one of another"
  return BadSubmodel(where, expected=expected, got=got, fix=fix)


def _said(error: BaseException) -> str:
  """In the system's words, which are without a path; others may have one."""
  return getattr(error, "strerror", None) or type(error).__name__
