"""Files that are read whole or not at all, local or on gs:// and s3://."""

import os

from etils import epath


def write_aside(path: epath.PathLike, data: bytes) -> None:
  """Writes beside `path`, then renames: no reader ever sees a part."""
  path = epath.Path(path)
  aside = path.parent / f".{path.name}.{os.getpid()}"
  aside.write_bytes(data)
  aside.replace(path)


def absolute(path: epath.PathLike) -> epath.Path:
  """The path from the root, or the URL as it is."""
  path = epath.Path(path)
  return path if path.is_absolute() else path.absolute()
