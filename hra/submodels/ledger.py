"""What a store remembers that no file of its own says: `ledger.json`.

Who changes the store reads and writes it, with the folder kept to itself; who lists
or reads Submodels never does. One that is lost or spoilt may give a number again
whose file somebody removed or overwrote by hand, and leaves shared parameters behind
that nobody needs.
"""

import json

from absl import logging

from hra.errors import StorageError
from hra.submodels.file import is_hash
from hra.submodels.names import LEDGER
from hra.submodels.place import Place


class Ledger:
  """Of one folder, as it was when it was read."""

  def __init__(self, place: Place):
    """Raises StorageError where it can't be reached."""
    self._place = place
    self._highest: dict[str, int] = {}
    self._doubted: set[str] = set()
    self._was = b""
    try:
      self._was = place.read(LEDGER)
      self._highest, self._doubted = _decoded(self._was)
    except FileNotFoundError:
      return
    except StorageError:
      raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
      logging.warning("%s/%s is spoilt: made anew", place.path, LEDGER)

  def highest(self, name: str) -> int:
    """The highest number that a task's file ever had; 0 of an unknown one."""
    return self._highest.get(name, 0)

  def count(self, name: str, version: int) -> None:
    self._highest[name] = max(version, self.highest(name))

  def forget(self, name: str) -> None:
    self._highest.pop(name, None)

  def doubt(self, shared: set[str]) -> set[str]:
    """Shared parameters that nobody may need any more, with those from before.

    They are remembered until `settle`, whatever happens to this process.
    """
    self._doubted |= shared
    return set(self._doubted)

  def settle(self) -> None:
    self._doubted = set()

  def save(self) -> None:
    """Writes it where anything is new; one that says nothing is removed.

    Raises:
      StorageError: it can't be written.
    """
    if not self._highest and not self._doubted:
      self._place.remove(LEDGER)
      self._was = b""
      return
    told = {"doubted": sorted(self._doubted), "highest": self._highest}
    data = json.dumps(told, indent=0, sort_keys=True).encode()
    if data != self._was:
      self._place.write(LEDGER, data)
      self._was = data


def _decoded(data: bytes) -> tuple[dict[str, int], set[str]]:
  """Raises whatever it likes where it is no ledger."""
  told = json.loads(data)
  highest = dict(told["highest"].items())
  if not all(type(number) is int for number in highest.values()):
    raise ValueError(LEDGER)
  return highest, {each for each in told["doubted"] if is_hash(each)}
