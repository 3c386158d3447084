"""Names of Submodels for the loaders, each once: looks at the store, and reads of it.

A look is short, and nobody is heard without a read: the two take turns, so that
neither keeps the other waiting, however many there are.
"""

import collections


class Asked:
  """All of it happens under the engine's lock."""

  def __init__(self) -> None:
    self._looks: collections.OrderedDict[str, None] = collections.OrderedDict()
    self._reads: collections.OrderedDict[str, None] = collections.OrderedDict()
    self._looked = False
    """Whether a look had the last turn."""

  def __len__(self) -> int:
    return len(self._looks) + len(self._reads)

  def __contains__(self, task: str) -> bool:
    return task in self._looks or task in self._reads

  def add(self, task: str, *, look: bool) -> None:
    (self._looks if look else self._reads)[task] = None

  def discard(self, task: str) -> None:
    self._looks.pop(task, None)
    self._reads.pop(task, None)

  def take(self) -> str:
    """The next one; there is one."""
    look = bool(self._looks) and not (self._looked and self._reads)
    task, _ = (self._looks if look else self._reads).popitem(last=False)
    self._looked = look
    return task
