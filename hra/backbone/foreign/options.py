"""What a checkpoint's JSON says of itself, and what of it can't be converted."""

from collections.abc import Mapping
from typing import Any

from hra.config.model import Activation
from hra.errors import InputError

ACTIVATIONS: dict[str, Activation] = {
  "silu": "silu",
  "swish": "silu",
  "relu": "relu",
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "tanh": "tanh",
}
"""Theirs -> `hra.nn.activations`."""


class Options:
  """Fields of a JSON object; where it is silent, its family's defaults.

  Fields without a default here, such as dropout, say nothing of a frozen model.
  """

  def __init__(
    self, told: Mapping[str, Any], defaults: Mapping[str, Any], *, where: str
  ):
    self._told, self._defaults, self._where = told, defaults, where

  def __getitem__(self, name: str) -> Any:
    """The field, of the type of its default.

    Raises:
      InputError: it has another one.
    """
    default = self._defaults[name]
    value = self._told.get(name, default)
    kind = type(default)
    if isinstance(value, list) and kind is tuple:
      value = tuple(value)
    if kind is float and type(value) is int:
      value = float(value)
    if type(value) is not kind:
      raise InputError(
        f"{self._where}.{name}",
        expected=f"such as {default!r}",
        got=repr(value),
      )
    return value

  def only(self, name: str, *allowed: Any, why: str = "") -> None:
    """Refuses what can't be converted.

    Raises:
      InputError: the field is none of `allowed`.
    """
    value = self._told.get(name, self._defaults[name])
    if value not in allowed:
      raise InputError(
        f"{self._where}.{name}",
        expected=" or ".join(map(repr, allowed)),
        got=repr(value),
        fix=why or "nothing else can be converted",
      )

  def absent_or(self, name: str, value: Any) -> None:
    """Refuses a field that says anything but what follows from the others.

    Raises:
      InputError: it does.
    """
    if self._told.get(name, value) != value:
      raise InputError(
        f"{self._where}.{name}",
        expected=str(value),
        got=str(self._told[name]),
        fix="nothing else can be converted",
      )

  def activation(self, name: str) -> Activation:
    """Ours of theirs.

    Raises:
      InputError: we have none such.
    """
    self.only(name, *ACTIVATIONS)
    return ACTIVATIONS[self[name]]
