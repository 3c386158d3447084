"""Files that are read whole or not at all, local or on gs:// and s3://."""

import json
import os
from collections.abc import Mapping
from typing import Any

from etils import epath


def write_aside(path: epath.PathLike, data: bytes) -> None:
  """Writes beside `path`, then renames: no reader ever sees a part."""
  path = epath.Path(path)
  aside = path.parent / f".{path.name}.{os.getpid()}"
  aside.write_bytes(data)
  aside.replace(path)


def write_json(path: epath.PathLike, values: Mapping[str, Any]) -> None:
  """`write_aside` of JSON for people to read, by sorted keys."""
  text = json.dumps(values, indent=2, sort_keys=True) + "\n"
  write_aside(path, text.encode())


def absolute(path: epath.PathLike) -> epath.Path:
  """The path from the root, or the URL as it is."""
  path = epath.Path(path)
  return path if path.is_absolute() else path.absolute()
