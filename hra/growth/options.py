"""What `hra enroll` may be told, apart from the run and the recordings."""

import dataclasses
from typing import Literal

Init = Literal["mean", "nearest", "fresh", "given"]
Fit = Literal["auto", "row", "embedding"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Of one enrolment."""

  task: str = ""
  """The one task of all recordings; empty takes the tasks that they name."""
  init: Init = "mean"
  """What a row starts from: the mean of the run's tasks; the one with the lowest
  loss on the new training recordings; as the run's own tasks did; or from what
  `start` names."""
  start: str = ""
  """A Submodel's file or a LoRA folder of PEFT that a row starts from, or a folder
  that has one for each new task; `init` is `given` then."""
  fit: Fit = "auto"
  """What is fitted: the row or the embedding; `auto`: as the run's space has."""
  steps: int = 0
  """Own steps of each new task; 0 is the run's, 100 at most."""
  unguarded: bool = False
  """Whether a dev part may be too small to judge the result by."""
  skip_bad: bool = False
  """Whether recordings that can't be used are left out instead of refused."""
  settings: tuple[str, ...] = ()
  """FIELD=VALUE of the configuration."""
