"""A checkpoint's folder as transformers saves it, read tensor by tensor.

Only JSON and safetensors are read: a pickle runs whatever code stands in it.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors

from hra.backbone.tensors import DTYPES
from hra.errors import InputError
from hra.files import is_remote, storage

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_WHOLE = "the folder is not whole: download it again"


class Source:
  """The tensors of a folder by name, and its JSON files.

  Raises:
    InputError: the folder isn't there or is in a bucket; it has no config.json, or
      no whole safetensors files.
  """

  def __init__(self, folder: str):
    if is_remote(folder):
      raise InputError(
        folder,
        expected="a local folder",
        got="an address",
        fix="copy the checkpoint here first",
      )
    self.folder = pathlib.Path(folder).expanduser()
    self.config = self.json(
      CONFIG_FILE, fix="name the folder of a checkpoint of transformers"
    )
    self._files: dict[pathlib.Path, Any] = {}
    self._file_of = self._weights()

  def __contains__(self, name: str) -> bool:
    return name in self._file_of

  @property
  def names(self) -> tuple[str, ...]:
    """Of all tensors, sorted."""
    return tuple(sorted(self._file_of))

  def where(self, name: str) -> str:
    """A tensor as errors name it."""
    return f"{self._file_of.get(name, self.folder)}: {name}"

  def shape(self, name: str) -> tuple[int, ...]:
    """Without reading the tensor.

    Raises:
      InputError: it holds no floating-point numbers.
    """
    header = self._opened(self._file_of[name]).get_slice(name)
    if header.get_dtype() not in DTYPES:
      raise InputError(
        self.where(name),
        expected=f"one of {', '.join(DTYPES)}",
        got=header.get_dtype(),
        fix="convert a checkpoint that isn't quantised",
      )
    return tuple(header.get_shape())

  def read(self, name: str) -> np.ndarray:
    """The tensor, in its own type."""
    return self._opened(self._file_of[name]).get_tensor(name)

  def has(self, file: str) -> bool:
    return (self.folder / file).is_file()

  def bytes(self, file: str, *, fix: str = _WHOLE) -> bytes:
    """A file of the folder.

    Raises:
      InputError: it isn't there.
    """
    path = self.folder / file
    if not path.is_file():
      raise InputError(path, expected="a file", got="no such file", fix=fix)
    with storage(path, expected="a file that can be read"):
      return path.read_bytes()

  def json(self, file: str, *, fix: str = _WHOLE) -> Mapping[str, Any]:
    """A JSON object of the folder.

    Raises:
      InputError: it isn't there, or is none.
    """
    path = self.folder / file
    try:
      found = json.loads(self.bytes(file, fix=fix))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
      raise InputError(path, expected="JSON", got=str(error)) from error
    if not isinstance(found, dict):
      raise InputError(path, expected="a JSON object", got=type(found).__name__)
    return found

  def _weights(self) -> dict[str, pathlib.Path]:
    """Tensor -> the file that it is in."""
    if self.has(WEIGHTS_FILE):
      path = self.folder / WEIGHTS_FILE
      return dict.fromkeys(self._opened(path).keys(), path)
    if not self.has(INDEX_FILE):
      raise self._no_weights()
    index = self.folder / INDEX_FILE
    told = self.json(INDEX_FILE).get("weight_map")
    if not isinstance(told, dict) or not all(
      isinstance(file, str) and file == pathlib.Path(file).name
      for file in told.values()
    ):
      raise InputError(
        index, expected="a weight_map of tensors to files beside it", got="none"
      )
    files = {name: self.folder / file for name, file in told.items()}
    held = {
      (name, path)
      for path in set(files.values())
      for name in self._opened(path).keys()  # noqa: SIM118 (no mapping)
    }
    for name, path in sorted(held ^ set(files.items())):
      raise InputError(
        f"{path}: {name}",
        expected=f"the tensors that {INDEX_FILE} lists",
        got="one that it doesn't" if (name, path) in held else "none",
        fix=_WHOLE,
      )
    return files

  def _opened(self, path: pathlib.Path) -> Any:
    if path not in self._files:
      if not path.is_file():
        raise InputError(
          path, expected="a safetensors file", got="no such file", fix=_WHOLE
        )
      try:
        self._files[path] = safetensors.safe_open(path, "np")
      except safetensors.SafetensorError as error:
        raise InputError(
          path, expected="a safetensors file", got=str(error), fix=_WHOLE
        ) from error
    return self._files[path]

  def _no_weights(self) -> InputError:
    pickles = sorted(
      path.name for each in _PICKLES for path in self.folder.glob(each)
    )
    return InputError(
      self.folder / WEIGHTS_FILE,
      expected="a safetensors file",
      got=f"only {pickles[0]}, a pickle, which may run any code"
      if pickles
      else "no such file",
      fix="load the checkpoint with transformers, where you trust it, and save it "
      "by save_pretrained"
      if pickles
      else _WHOLE,
    )
