"""A run trained anew, without those whom another one has forgotten.

Enters: the other run's folder. Leaves: a folder that remembers by hash whom it does
without, and the configuration to train there.
"""

import operator

from etils import epath

from hra import claim, config_tree, given, members
from hra.config import Config
from hra.errors import InputError


def check_vacant(out: epath.Path, workdir: epath.Path, task: str) -> None:
  """Whether a run can be trained anew in the folder `out`, or goes on there.

  Raises:
    InputError: it is in `workdir`, or that of a run that was not to do without
      the task from its beginning.
  """
  inside = workdir in (out, *out.parents)
  known = (out / "config.json").exists()
  if inside or (known and members.task_hash(task) not in members.left_out(out)):
    raise InputError(
      f"--retrain={out}",
      expected="a new folder",
      got="one in the run's own" if inside else "the folder of another run",
    )


def configuration(workdir: epath.PathLike, out: epath.Path) -> Config:
  """Begins a run in `out` without all that another has forgotten, by hash.

  Returns:
    Its configuration: the other's, with what that one kept about tasks.
  """
  workdir = epath.Path(workdir)
  config = claim.config_of(claim.read(workdir), workdir / "config.json")
  if not claim.has_begun(out):
    members.leave_out(out, members.absent(workdir))

  for name, field in given.KEPT.items():
    if operator.attrgetter(field)(config) and (workdir / name).exists():
      config = config_tree.replaced(config, field, str(workdir / name))
  return config
