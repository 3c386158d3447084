"""A small file system, for tests of full disks and mounts."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path, *, options: str) -> Iterator[Path]:
  """A tmpfs on a folder, which is made; skips where nobody may mount one."""
  folder.mkdir(exist_ok=True)
  program = shutil.which("mount")
  done = program and subprocess.run(
    [program, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
    capture_output=True,
    check=False,
  )
  if not done or done.returncode:
    pytest.skip("only root may mount a file system, where that is allowed")
  try:
    yield folder
  finally:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, *, size: str) -> None:
  """Gives a mounted file system another size."""
  command = ["mount", "-o", f"remount,size={size}", str(folder)]
  subprocess.run(command, check=True)
