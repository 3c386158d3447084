"""A run's data: where they are, who of them takes part, how their lengths are cut.

Enters: a configuration and the run's folder. Leaves: the configuration with its data
settled (and, if synthetic, made), splits, ends of length buckets.
"""

import dataclasses

from etils import epath

from hra import claim, config_tree, members, processes
from hra.backbone import store
from hra.config import Config
from hra.data.batching import bucket_bounds
from hra.data.dataset import Split, open_split, split_names
from hra.data.prepare import prepare
from hra.data.synthetic.corpus import synthesize
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.files import absolute


def with_data(config: Config, workdir: epath.Path) -> Config:
  """The configuration with `data.path` settled and, if synthetic, made.

  Raises:
    InputError: no path to prepared data; the synthesiser is not installed.
  """
  if config.data.source == "prepared":
    if config.data.path:
      return _with_path(config, config.data.path)
    raise InputError(
      "config.data.path",
      expected="a folder that hra prepare made",
      got="nothing",
      fix="hra prepare --source=MANIFEST --out=data/mine, then "
      "--config.data.path=data/mine",
    )
  path = epath.Path(config.data.path or workdir / "data")
  processes.first_does(lambda: _make_data(config, path))
  return _with_path(config, path / "prepared")


def _make_data(config: Config, path: epath.Path) -> None:
  manifests = synthesize(path / "corpus", spec=config.synthetic)
  anew = config.train.mode == "pretrain" and config.train.start == "random"
  backbone = store.folder_of(config.backbone_path)
  prepare(
    manifests,
    path / "prepared",
    # Speakers who swallow sounds may say more labels than fit; the loader knows.
    config=dataclasses.replace(config.prepare, labels_per_second=0.0),
    tokenizer=None if anew else backbone,
  )


def _with_path(config: Config, path: epath.PathLike) -> Config:
  data = dataclasses.replace(
    config.data, source="prepared", path=str(absolute(path))
  )
  return claim.with_files(dataclasses.replace(config, data=data))


def taking_part(config: Config, workdir: epath.Path, split: Split) -> Split:
  """A split without tasks that take no part.

  Raises:
    InputError: a name in `data.tasks` or `data.without` is no task of the train
      split; nobody is left.
  """
  chosen, without = config.data.tasks, config.data.without
  absent = members.absent(workdir)
  if not (chosen or without or absent):
    return split
  known = set(split.tasks)
  training = split.name == config.data.train_split
  if config.data.grouping == "pooled" and not training:
    chosen = ()  # a pool is judged on whatever voices dev and test have
  if training:
    for field, names in (("tasks", chosen), ("without", without)):
      for task in names:
        if task not in known:
          raise InputError(
            f"config.data.{field}",
            expected=f"names of the {len(known):,} tasks in {split.name!r}",
            got=repr(task),
            fix=f"did you mean {config_tree.nearest(task, known)!r}?",
          )
  left = {
    task
    for task in known.intersection(chosen or known).difference(without)
    if members.task_hash(task) not in absent
  }
  if training and not left:
    raise InputError(
      f"{config.data.path}: split {split.name!r}",
      expected="a task that takes part",
      got="none",
      fix="see config.data.tasks and config.data.without",
    )
  return split.of(left)


def fingerprint(config: Config, workdir: epath.Path, train: Split) -> str:
  """Of what is trained and judged on: who takes no part may come and go."""
  name = config.data.dev_split
  if name not in split_names(config.data.path):
    return train.fingerprint()
  dev = taking_part(config, workdir, open_split(config.data.path, name))
  return train.fingerprint() + dev.fingerprint()


def bounds_in_samples(
  config: Config, split: Split, *, begun: tuple[int, ...]
) -> tuple[int, ...]:
  """Ends of the length buckets in samples, the same whoever takes part.

  Args:
    begun: those that the run began with: data may come and go since.
  """
  seconds = config.data.bucket_seconds
  if not seconds:
    return begun or bucket_bounds(split.samples, count=config.data.buckets)
  bounds = tuple(round(end * SAMPLE_RATE) for end in seconds)
  longest = int(split.samples.max())
  if list(bounds) != sorted(set(bounds)) or longest > bounds[-1]:
    raise InputError(
      "config.data.bucket_seconds",
      expected="ascending ends that hold the longest recording "
      f"({longest / SAMPLE_RATE:.2f} s)",
      got=str(seconds),
    )
  return bounds
