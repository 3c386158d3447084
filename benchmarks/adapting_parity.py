"""What has to hold before steps are timed: the same work, on the same weights.

(1) PEFT's, the stacked layout's and our losses and gradients of every speaker's LoRA,
read from the same folders, are those of PEFT in 64 bits. (2) Rows after joint steps equal those after
steps of one speaker at a time.
"""

import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import adapting_ours as ours
import jax
import numpy as np

from hra.adapters.interface import Tree
from hra.backbone.store import StoredBackbone
from hra.data.batching import Batch
from hra.errors import InputError
from hra.peft import folder as peft_folder

LOSS, GRADIENT = 1e-5, 5e-5
"""Of nats per label; of a speaker's gradient, by its largest number. Where PEFT in 32
bits is farther from itself in 64 than half of that, twice as far as its worst."""
MOVED = 5e-3
"""Of the way that a row went, by which a joint one may differ for float32's rounding:
AdamW's first steps go as far for a gradient near zero as for any, in a direction that
rounding chooses. A little more than 1e-3 was seen, and 1e-5 in another shape. In 64 bits
tests/train/test_independence.py asks for 1e-9."""
STEPS = 3


class Compared(Protocol):
  """A contestant of `adapting_torch`."""

  def gradients(self) -> tuple[np.ndarray, list[Any]]: ...


def losses_agree(
  of_us: np.ndarray, of_them: np.ndarray, *, where: str
) -> float:
  """How far they are apart at most, by the loss.

  Raises:
    InputError: farther than `LOSS`.
  """
  return _within(
    np.abs(of_us - of_them) / np.abs(of_us), LOSS, f"{where}: loss"
  )


def gradients_agree(
  exact: Tree, found: Tree, *, where: str, rounded: Tree | None = None
) -> float:
  """How far leaves [K, ...] are apart at most, by each speaker's largest number.

  Args:
    rounded: the exact ones as float32 rounds them elsewhere.

  Raises:
    InputError: farther than `GRADIENT`, and than twice the worst of `rounded`.
  """
  most = GRADIENT
  if rounded is not None:
    apart_K = _largest(_apart(exact, rounded)) / _largest(exact)
    most = max(most, 2 * float(apart_K.max()))
  return _within(
    _largest(_apart(exact, found)) / _largest(exact),
    most,
    f"{where}: gradient",
  )


def rows_agree(joint: Tree, alone: Tree, start: Tree) -> float:
  """How far rows [K, ...] are apart at most, by how far each went.

  Raises:
    InputError: farther than `MOVED`.
  """
  return _within(
    _norm(_apart(joint, alone)) / _norm(_apart(alone, start)),
    MOVED,
    f"rows after {STEPS} joint steps",
  )


def _within(found_K: np.ndarray, most: float, where: str) -> float:
  worst = int(np.argmax(np.where(np.isnan(found_K), np.inf, found_K)))
  if not found_K[worst] <= most:  # NaN neither
    raise InputError(
      f"{where} of speaker {worst}",
      expected=f"the same within {most:.2g}",
      got=f"{found_K[worst]:.2g} apart: nothing is timed",
    )
  return float(found_K[worst])


def _apart(one: Tree, other: Tree) -> Tree:
  return jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), one, other)


def _flat(tree: Tree) -> np.ndarray:
  """[K, numbers]"""
  leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
  return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


def _largest(tree: Tree) -> np.ndarray:
  return np.abs(_flat(tree)).max(1)


def _norm(tree: Tree) -> np.ndarray:
  return np.linalg.norm(_flat(tree), axis=1)


def all_agree(
  contestants: Mapping[str, Compared],
  exact: Compared,
  stored: StoredBackbone,
  folders: Sequence[pathlib.Path],
  batch: Batch,
) -> dict[str, dict[str, float]]:
  """What torch's contestants and we are apart from PEFT in 64 bits.

  Raises:
    InputError: too far.
  """
  import adapting_torch

  adapter, rows_K = ours.read_rows(folders, stored)
  said = {
    name: _said(each, stored, folders) for name, each in contestants.items()
  }
  said["ours"] = ours.gradients(stored, adapter, rows_K, batch)
  loss_K, gradient = _said(exact, stored, folders)
  _, rounded = said[adapting_torch.PEFT]
  return {
    name: {
      "loss": losses_agree(loss_K, their_K, where=name),
      "gradient": gradients_agree(
        gradient, theirs, where=name, rounded=rounded
      ),
    }
    for name, (their_K, theirs) in said.items()
  }


def _said(
  contestant: Compared,
  stored: StoredBackbone,
  folders: Sequence[pathlib.Path],
) -> tuple[np.ndarray, Tree]:
  """Losses [K] and gradients [K, ...] of one of torch's, as rows of ours."""
  import adapting_torch

  loss_K, tensors = contestant.gradients()
  with tempfile.TemporaryDirectory() as temporary:
    written = [
      pathlib.Path(temporary) / str(index) for index in range(len(tensors))
    ]
    for path, each, like in zip(written, tensors, folders, strict=True):
      adapting_torch.write(path, each, like=like)
    read = [peft_folder.read(path, stored).row for path in written]
  return loss_K, jax.tree.map(lambda *leaves: np.stack(leaves), *read)


def joint_is_alone(made: ours.Contestants) -> float:
  """How far rows of joint steps are from those of steps alone.

  Raises:
    InputError: too far.
  """
  batch = made.joint.batch
  start = jax.device_get(made.joint.state.rows)
  joint = ours.stepped(made.joint, [batch], steps=STEPS)
  each = [ours.of(batch, index) for index in range(len(batch.task_K))]
  return rows_agree(joint, ours.stepped(made.alone, each, steps=STEPS), start)
