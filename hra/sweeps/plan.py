"""An experiment and its axes -> the runs of a sweep: names, settings, commands.

Nothing is written or started here, so that a launcher can render the same runs.
What can't run is refused before anything has.
"""

import copy
import dataclasses
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from hra import config_tree
from hra.adapters import families
from hra.config import Config
from hra.data.synthetic.sentences import SPLITS
from hra.errors import InputError
from hra.files import absolute
from hra.sweeps.axes import read_axes

DATA = "data"
"""Folder of the corpora that runs of a sweep make and share."""

_RESERVED = {DATA, "sweep.json", "report.html"}
_DEVICES = {"con", "prn", "aux", "nul"} | {
  f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)
}
"""No names of files on Windows, whatever follows behind a dot."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_UNSAFE = re.compile(r"[^a-z0-9._+-]+")
_LONGEST = 80


class Run(NamedTuple):
  """One run of a sweep."""

  name: str
  """Of its folder in the sweep's: its settings, or its label and the axes'."""
  label: str
  """What sweep() calls it; may be empty."""
  overrides: Mapping[str, str]
  """Field -> value, as `--config.FIELD=VALUE` takes it."""
  config: Config
  """What is asked for; data that are synthesised have no place yet."""
  folder: epath.Path
  split: str
  """Scored at the end."""
  corpus: str
  """Where the run makes its data or finds them made; empty without synthesis."""


class Sweep(NamedTuple):
  """All runs of a sweep, in the order of sweep() and the axes."""

  experiment: str
  workdir: epath.Path
  settings: tuple[str, ...]
  """FIELD=VALUE of every run."""
  axes: Mapping[str, Sequence[str]]
  runs: tuple[Run, ...]


def make(
  base: Config,
  *,
  experiment: str,
  workdir: epath.PathLike,
  axes: Sequence[str] = (),
  declared: Any = None,
  settings: Sequence[str] = (),
  split: str = "",
) -> Sweep:
  """Plans a sweep; every configuration in it is valid, wherever it will run.

  Args:
    base: get_config() of the experiment, without the settings.
    experiment: its file, for the command lines.
    workdir: the sweep's folder.
    axes: FIELD=VALUE,VALUE,...; their product, times what sweep() declares.
    declared: what sweep() returned: a list of {field: value}, or {name: {field:
      value}}; None where there is none.
    settings: FIELD=VALUE of every run.
    split: scored of each run; empty is its test split.

  Raises:
    InputError: nothing varies, an axis or sweep() that can't be read, a field
      that is set twice, two runs that are the same.
    ConfigError: a configuration that can't run, naming run and field.
  """
  base = copy.deepcopy(base)
  for assignment in settings:
    config_tree.override(base, assignment, path="--config")
  parsed = read_axes(base, axes)
  if not parsed and declared is None:
    raise InputError(
      "--axis",
      expected="an axis, or a sweep() beside the experiment's get_config()",
      got="neither",
      fix="such as --axis=adapter.width=32,64,128",
    )
  entries = [("", {})] if declared is None else _declared(declared, experiment)
  _check_set_once(parsed, entries, settings, experiment)
  workdir = absolute(workdir)
  runs = [
    _run(base, label, fields, dict(zip(parsed, values, strict=True)), workdir)
    for label, fields in entries
    for values in itertools.product(*parsed.values())
  ]
  _check_unlike(runs)
  return Sweep(
    experiment=os.path.abspath(experiment),
    workdir=workdir,
    settings=tuple(settings),
    axes=parsed,
    runs=tuple(_with_split(run, split) for run in runs),
  )


def only(sweep: Sweep, names: Sequence[str]) -> Sweep:
  """The sweep with those of its runs that are named; all without a name.

  Raises:
    InputError: it has no such run.
  """
  planned = {run.name: run for run in sweep.runs}
  for name in names:
    if name not in planned:
      raise InputError(
        "--only",
        expected=f"a run of the sweep, which has {len(planned)}",
        got=repr(name),
        fix=f"did you mean {config_tree.nearest(name, planned)!r}?",
      )
  chosen = tuple(planned[name] for name in dict.fromkeys(names))
  return sweep._replace(runs=chosen) if names else sweep


def commands(
  sweep: Sweep, run: Run, *, python: str = sys.executable
) -> dict[str, list[str]]:
  """Verb -> the command line of it, in the order in which they are run."""
  chosen = [f"{field}={value}" for field, value in run.overrides.items()]
  if run.corpus and not run.config.data.path:
    chosen.append(f"data.path={run.corpus}")
  return {
    "train": [
      python,
      "-m",
      "hra.commands.train",
      f"--config={sweep.experiment}",
      f"--workdir={run.folder}",
      *(f"--config.{each}" for each in (*sweep.settings, *chosen)),
    ],
    "evaluate": [
      python,
      "-m",
      "hra.commands.evaluate",
      f"--workdir={run.folder}",
      f"--split={run.split}",
    ],
  }


def needs_backbone(config: Config) -> bool:
  """Whether a run starts from a backbone that stands somewhere."""
  return config.train.mode != "pretrain" or config.train.start != "random"


def name_of(overrides: Mapping[str, str], *, label: str = "") -> str:
  """A folder's name, such as `adapter.width=64,seed=1`.

  Lower case, the label as well, and safe on every file system. It depends on nothing but its
  arguments, whatever their order; where characters had to be replaced or cut, a
  hash of the settings makes it one of its own.
  """
  parts = sorted(overrides.items())
  shown = [
    f"{_UNSAFE.sub('-', field.lower())}={_UNSAFE.sub('-', value.lower())}"
    for field, value in parts
  ]
  name = ",".join([label.lower(), *shown] if label else shown)
  exact = all(
    text == f"{field}={value}"
    for text, (field, value) in zip(shown, parts, strict=True)
  )
  if exact and len(name) <= _LONGEST and not name.endswith("."):
    return name
  return f"{name[: _LONGEST - 9].rstrip('.')}-{_digest(repr(parts))}"


def flat(config: Config) -> dict[str, Any]:
  """Every field by its path, such as `adapter.width`."""
  return config_tree.flat(config_tree.to_dict(config))


def _declared(
  declared: Any, experiment: str
) -> list[tuple[str, dict[str, str]]]:
  """What sweep() returned as (label, overrides)."""
  where = f"{experiment}: sweep()"
  named = isinstance(declared, Mapping)
  if not declared or not isinstance(declared, Mapping | list | tuple):
    raise InputError(
      where,
      expected="a list of {field: value}, or {name: {field: value}}",
      got=repr(declared),
    )
  entries = (
    list(declared.items())
    if isinstance(declared, Mapping)
    else [("", each) for each in declared]
  )
  for label, fields in entries:
    if not isinstance(fields, Mapping):
      raise InputError(
        where,
        expected=f"{{field: value}} for {label!r}" if named else "mappings",
        got=repr(fields),
        fix="such as {'small': {'adapter.width': 64}}",
      )
    if named and (
      not isinstance(label, str)
      or not _NAME.fullmatch(label)
      or label.endswith(".")
      or label.lower() in _RESERVED
      or label.lower().split(".")[0] in _DEVICES
    ):
      raise InputError(
        where,
        expected="names of letters, digits and . _ - that can be folders",
        got=repr(label),
      )
  return [
    (
      label,
      {
        str(field): config_tree.written(value)
        for field, value in fields.items()
      },
    )
    for label, fields in entries
  ]


def _check_set_once(
  axes: Mapping[str, Sequence[str]],
  entries: Sequence[tuple[str, Mapping[str, str]]],
  settings: Sequence[str],
  experiment: str,
) -> None:
  declared = {field for _, fields in entries for field in fields}
  for field in axes:
    if field in declared:
      raise InputError(
        f"--axis={field}",
        expected=f"a field that sweep() of {experiment} leaves alone",
        got="one that it sets",
      )
  for setting in settings:
    field = setting.partition("=")[0]
    if field in declared or field in axes:
      by = "an axis" if field in axes else "sweep()"
      raise InputError(
        f"--config.{field}",
        expected="a field that no run sets itself",
        got=f"one of {by}",
      )


def _run(
  base: Config,
  label: str,
  fields: Mapping[str, str],
  values: Mapping[str, str],
  workdir: epath.Path,
) -> Run:
  """One run: what sweep() sets, and the axes' values."""
  config = copy.deepcopy(base)
  for field, value in (*fields.items(), *values.items()):
    path = f"sweep() {label}: config" if label else "config"
    config_tree.override(config, f"{field}={value}", path=path)
  written = flat(config)
  overrides = {
    field: config_tree.written(written[field]) for field in (*fields, *values)
  }
  # A label stands for what sweep() sets.
  telling = (
    {field: overrides[field] for field in values} if label else overrides
  )
  name = name_of(telling, label=label) or "defaults"
  _check(config, path=f"{name}: config")
  return Run(
    name=name,
    label=label,
    overrides=overrides,
    config=config,
    folder=workdir / name,
    split="",
    corpus=_corpus(config, workdir),
  )


def _check(config: Config, *, path: str) -> None:
  """Refuses what `hra.run` would, as far as no file has to be read for it."""
  config_tree.validate(config, path=path)
  mels = config.features.width
  try:  # names of sites are the same in backbones of all sizes
    families.build(config.adapter, config.backbone, mels=mels)
  except InputError as error:
    raise InputError(
      error.where.replace("config", path, 1),
      expected=error.expected,
      got=error.got,
      fix=error.fix,
    ) from error


def _with_split(run: Run, split: str) -> Run:
  """The run, scored on `split`, or on its test split where that is empty."""
  data = run.config.data
  scored = split or data.test_split
  if data.source == "synthetic" and scored not in SPLITS:
    raise InputError(
      "--split" if split else f"{run.name}: config.data.test_split",
      expected=f"one of {', '.join(map(repr, SPLITS))} of synthetic data",
      got=repr(scored),
      fix=f"did you mean {config_tree.nearest(scored, SPLITS)!r}?",
    )
  return run._replace(split=scored)


def _corpus(config: Config, workdir: epath.Path) -> str:
  """One folder for all runs that hear the same synthesised speech."""
  if config.data.source != "synthetic":
    return ""
  if config.data.path:
    return str(absolute(config.data.path))
  # Neither is asked for: how many processes, and what `hra.run` sets anew.
  prepare = dataclasses.replace(config.prepare, jobs=0, labels_per_second=0.0)
  heard = (
    config_tree.to_dict(config.synthetic),
    config_tree.to_dict(prepare),
    config.backbone_path if needs_backbone(config) else None,  # its tokenizer
  )
  return str(workdir / DATA / _digest(repr(heard)))


def _check_unlike(runs: Sequence[Run]) -> None:
  folders: dict[str, Run] = {}
  for run in runs:
    other = folders.setdefault(run.name.casefold(), run)
    if other is not run:
      raise InputError(
        run.folder,
        expected="runs that differ",
        got=f"{other.name!r} and {run.name!r} for one folder",
        fix="leave one out, or give them other names",
      )


def _digest(text: str) -> str:
  return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
