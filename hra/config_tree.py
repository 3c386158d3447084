"""Operations on the typed tree of `hra.config`: check it, set it, (de)serialise it.

Enters: a tree of dataclasses, plain dicts as config.json has them, or the text
`a.b=value`. Leaves: a tree that can run, or a `ConfigError` that names the field.
"""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hra.config import (
  AdapterConfig,
  BackboneConfig,
  DataConfig,
  EvalConfig,
  FrontendConfig,
  OptimizerConfig,
  SpaceConfig,
  SpecAugmentConfig,
  SyntheticConfig,
  TrainConfig,
)
from hra.dims import SAMPLE_RATE
from hra.errors import InputError

Tree = TypeVar("Tree")

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class ConfigError(InputError):
  """A configuration that can't run."""


def to_dict(config: Any) -> dict[str, Any]:
  """The tree as plain dicts, for config.json."""
  return dataclasses.asdict(config)


def from_dict(
  cls: type[Tree], values: Mapping[str, Any], *, path: str = "config"
) -> Tree:
  """Builds `cls` from plain dicts; a field that is absent has its default.

  Raises:
    ConfigError: an unknown field or a wrong type, naming the field's path, what
      was expected and what was got.
  """
  if not isinstance(values, Mapping):
    raise _wrong_type(path, values, expected=f"the fields of {cls.__name__}")
  fields = {}
  for name, value in values.items():
    where = f"{path}.{name}"
    hint = _hint(cls, name, where=where)
    fields[name] = (
      from_dict(hint, value, path=where)
      if _is_group(hint)
      else _checked(value, hint, where)
    )
  return cls(**fields)


def override(config: Any, assignment: str, *, path: str = "config") -> None:
  """Sets one field of the tree in place, from `a.b=value`.

  The text becomes what the field is: `true`, `false`, `1` or `0` for a bool, a
  number, a string as it stands, or values with commas between for a tuple.

  Raises:
    ConfigError: an unknown field (naming the nearest), a group instead of a
      field, a field below a field, or text that is no value of the field.
  """
  names, equals, text = assignment.partition("=")
  where = f"{path}.{names}"
  if not equals:
    raise ConfigError(where, expected="=VALUE behind it", got="nothing")
  *groups, leaf = names.split(".")
  for depth, group in enumerate(groups, 1):
    if not _is_group(_hint(type(config), group, where=where)):
      raise ConfigError(
        where,
        expected=f"nothing below {group!r}, which has no fields",
        got=".".join(names.split(".")[depth:]),
      )
    config = getattr(config, group)
  hint = _hint(type(config), leaf, where=where)
  if _is_group(hint):
    fields = get_type_hints(hint)
    raise ConfigError(
      where,
      expected=f"one of its fields ({', '.join(fields)})",
      got="the whole group",
      fix=f"such as {where}.{next(iter(fields))}=...",
    )
  setattr(config, leaf, _checked(_parsed(text, hint), hint, where))


def validate(config: Any, *, path: str = "config") -> None:
  """Checks every field's type and choices, and what fields say of one another.

  Raises:
    ConfigError: one line for the first field that can't stand.
  """
  for name, hint in get_type_hints(type(config)).items():
    where = f"{path}.{name}"
    value = getattr(config, name)
    if not _is_group(hint):
      _checked(value, hint, where)
    elif type(value) is hint:
      validate(value, path=where)
    else:
      raise _wrong_type(where, value, expected=_name(hint))
  rules = _RULES.get(type(config), lambda _: ())
  for field, holds, expected in itertools.chain(_minima(config), rules(config)):
    if not holds:
      got = str(getattr(config, field))
      raise ConfigError(f"{path}.{field}", expected=expected, got=got)


def nearest(name: str, choices: Iterable[str]) -> str:
  """The choice that `name` most likely meant."""
  return difflib.get_close_matches(name, choices, n=1, cutoff=0.0)[0]


_Rule = tuple[str, bool, str]
"""A field, whether it can stand, and what is expected of it."""

_AT_LEAST: dict[type, dict[str, float]] = {
  BackboneConfig: {"width": 4, "layers": 1, "heads": 1, "kernel": 1},
  AdapterConfig: {"width": 1, "head_width": 1, "alpha": 0},
  SpaceConfig: {"size": 1, "rank": 1},
  OptimizerConfig: {"learning_rate": 0, "warmup_steps": 0, "clip_norm": 0},
  DataConfig: {
    "tasks_per_batch": 1,
    "utterances_per_task": 1,
    "eval_batch": 1,
    "buckets": 1,
    "max_task_utterances": 0,
    "max_task_seconds": 0,
    "reference_utterances": 1,
    "speed_low": 0.5,
    "prefetch": 0,
    "threads": 1,
  },
  TrainConfig: {
    "steps": 0,
    "log_every": 1,
    "eval_every": 0,
    "patience": 0,
    "max_bad_steps": 1,
    "save_seconds": 0,
    "keep": 1,
    "keep_best": 0,
  },
  EvalConfig: {"bootstrap": 100, "seed": 0, "guard_words": 1},
  SyntheticConfig: {
    "speakers": 1,
    "train_utterances": 1,
    "dev_utterances": 1,
    "test_utterances": 1,
    "unseen_speakers": 1,
    "severity": 0,
    "severity_spread": 0,
    "seed": 0,
  },
  FrontendConfig: {
    "frame_length": 2,
    "hop_length": 1,
    "num_mels": 1,
    "pad_to": 0,
    "floor": 0,
    "stack": 1,
  },
  SpecAugmentConfig: {
    "freq_masks": 0,
    "freq_width": 0,
    "time_masks": 0,
    "time_width": 0,
    "warp": 0,
  },
}


def _minima(config: Any) -> Iterator[_Rule]:
  for field, low in _AT_LEAST.get(type(config), {}).items():
    yield field, getattr(config, field) >= low, f"at least {low:g}"


def _backbone(config: BackboneConfig) -> Iterator[_Rule]:
  yield (
    "heads",
    config.width % (2 * config.heads) == 0,
    f"a divisor of half the width ({config.width // 2})",
  )


def _data(config: DataConfig) -> Iterator[_Rule]:
  yield (
    "speed_low",
    config.speed_low <= config.speed_high,
    f"at most speed_high ({config.speed_high:g})",
  )
  yield (
    "temperature",
    config.temperature == 0 or config.temperature >= 1,
    "0 (none), or 1 and more",
  )
  yield "balance", 0 <= config.balance <= 1, "a number between 0 and 1"
  pooled = config.grouping == "pooled"
  instead = "with data.grouping 'pooled' (data.temperature balances a pool)"
  yield "task_weights", not (pooled and config.task_weights), f"none {instead}"
  yield "balance", not (pooled and config.balance), f"0 {instead}"


_SEVERITIES = {"training": (0.0, 1.0), "held_out": (0.35, 1.0)}
"""Of pools of combinations of habits."""


def _synthetic(config: SyntheticConfig) -> Iterator[_Rule]:
  yield (
    "snr_low",
    config.snr_low <= config.snr_high,
    f"at most snr_high ({config.snr_high:g})",
  )
  yield (
    "severity_spread",
    config.severity_spread <= config.severity,
    f"at most severity ({config.severity:g})",
  )
  # A held-out speaker needs two habits; with more than seven, some sets of
  # habits have no combination that a training speaker may have.
  lowest, highest = _SEVERITIES.get(config.combinations, (0.0, math.inf))
  yield (
    "severity",
    lowest <= config.severity - config.severity_spread
    and config.severity + config.severity_spread <= highest,
    f"what keeps every speaker's between {lowest:g} and {highest:g} with "
    f"combinations {config.combinations!r} and severity_spread "
    f"{config.severity_spread:g}",
  )


def _train(config: TrainConfig) -> Iterator[_Rule]:
  yield "shared_part", 0 <= config.shared_part <= 1, "a part between 0 and 1"
  yield (
    "select",
    config.select == "best" or not config.patience,
    f"'best' with patience {config.patience}",
  )
  yield (
    "start",
    config.mode == "pretrain" or config.start == "random",
    "'random' where the backbone is frozen (train.mode 'adapt')",
  )
  if config.mode == "pretrain":
    for field in ("eval_every", "keep_best"):
      yield (
        field,
        config.select == "last" or getattr(config, field) > 0,
        f"at least 1 with select {config.select!r} when pretraining",
      )


def _evaluate(config: EvalConfig) -> Iterator[_Rule]:
  yield "confidence", 0 < config.confidence < 1, "a number between 0 and 1"


def _frontend(config: FrontendConfig) -> Iterator[_Rule]:
  yield (
    "fft_length",
    config.fft_length >= config.frame_length,
    f"at least frame_length ({config.frame_length})",
  )
  yield (
    "high_hz",
    0 <= config.low_hz < config.high_hz <= SAMPLE_RATE / 2,
    f"more than low_hz ({config.low_hz:g}), both in [0, {SAMPLE_RATE // 2}]",
  )


def _specaugment(config: SpecAugmentConfig) -> Iterator[_Rule]:
  parts = (
    "time_ratio",
    "time_multiplicity",
    "time_size",
    "time_budget",
    "probability",
  )
  for field in parts:
    yield field, 0 <= getattr(config, field) <= 1, "a part between 0 and 1"
  adaptive = config.time_size > 0
  yield (
    "freq_width",
    config.freq_masks == 0 or config.freq_width > 0,
    f"at least 1 with freq_masks {config.freq_masks}",
  )
  yield (
    "time_width",
    config.time_masks == 0 or config.time_width > 0 or adaptive,
    f"at least 1 with time_masks {config.time_masks} and no time_size",
  )
  yield (
    "time_width",
    config.time_width == 0 or not adaptive,
    f"0, because the width follows time_size ({config.time_size:g})",
  )
  yield (
    "time_ratio",
    config.time_ratio >= config.time_size,
    f"at least time_size ({config.time_size:g})",
  )
  yield (
    "time_masks",
    config.time_masks > 0 or not (adaptive or config.time_multiplicity > 0),
    "at least 1 with adaptive time masks (the cap of their number)",
  )


_RULES: dict[type, Callable[[Any], Iterable[_Rule]]] = {
  BackboneConfig: _backbone,
  DataConfig: _data,
  EvalConfig: _evaluate,
  FrontendConfig: _frontend,
  SpecAugmentConfig: _specaugment,
  SyntheticConfig: _synthetic,
  TrainConfig: _train,
}


def _is_group(hint: Any) -> bool:
  return dataclasses.is_dataclass(hint)


def _hint(cls: type, name: str, *, where: str) -> Any:
  """The type of a field, or an error that names the nearest field."""
  hints = get_type_hints(cls)
  if name not in hints:
    raise ConfigError(
      where,
      expected=f"a field of {cls.__name__} ({', '.join(hints)})",
      got=f"unknown {name!r}",
      fix=f"did you mean {nearest(name, hints)!r}?",
    )
  return hints[name]


def _parsed(text: str, hint: Any) -> Any:
  """What the text says, or the text itself where it is no value of the type."""
  if get_origin(hint) is tuple:
    element = get_args(hint)[0]
    inside = text.strip("()[] ").removesuffix(",")
    parts = inside.split(",") if inside else []
    return tuple(_parsed(part.strip(), element) for part in parts)
  if hint is bool:
    return _BOOLEANS.get(text.lower(), text)
  if hint in (int, float):
    try:
      return hint(text)
    except ValueError:
      return text
  return text


def _checked(value: Any, hint: Any, where: str) -> Any:
  """The value as its field's type: an int as a float, a list as a tuple."""
  if get_origin(hint) is Literal:
    return _checked_choice(value, get_args(hint), where)
  if get_origin(hint) is tuple:
    if not isinstance(value, tuple | list):
      raise _wrong_type(where, value, expected=_name(hint))
    element = get_args(hint)[0]
    return tuple(
      _checked(part, element, f"{where}[{i}]") for i, part in enumerate(value)
    )
  if hint is float and type(value) is int:
    value = float(value)
  if type(value) is not hint:
    raise _wrong_type(where, value, expected=_name(hint))
  if hint is float and not math.isfinite(value):
    raise ConfigError(where, expected="a finite number", got=f"{value:g}")
  return value


def _checked_choice(value: Any, choices: tuple[str, ...], where: str) -> str:
  if value in choices:
    return value
  raise ConfigError(
    where,
    expected=f"one of {', '.join(map(repr, choices))}",
    got=repr(value),
    fix=f"did you mean {nearest(str(value), choices)!r}?",
  )


def _wrong_type(where: str, value: Any, *, expected: str) -> ConfigError:
  got = f"{value!r} ({type(value).__name__})"
  return ConfigError(where, expected=expected, got=got)


def _name(hint: Any) -> str:
  if get_origin(hint) is tuple:
    return f"a tuple of {_name(get_args(hint)[0])}"
  return hint.__name__
