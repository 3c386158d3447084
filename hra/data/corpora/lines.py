"""Text files of corpora -> numbered lines.

Enters: a file, local or on a bucket, with any line ends. Leaves: its lines that
aren't blank, each decoded by itself, so that one in another encoding is one
problem with its number.
"""

import codecs
from typing import NamedTuple

from etils import epath

from hra.data.records import Problems
from hra.errors import InputError
from hra.files import storage

_BLANK = " \t\v\f"


class Line(NamedTuple):
  """One line of a file."""

  where: str
  """`file:line`."""
  text: str
  """Without white space at its ends."""


def read(
  path: epath.Path,
  *,
  expected: str,
  problems: Problems,
  shown: str | None = None,
) -> list[Line]:
  """The lines of a UTF-8 text file; those that are no UTF-8 are problems.

  Args:
    path: the file.
    expected: what it should be, for messages.
    problems: where lines in another encoding are listed.
    shown: the file's name in messages; None is its path.

  Raises:
    InputError: the file is in UTF-16.
    StorageError: it can't be read.
  """
  name = str(path) if shown is None else shown
  with storage(name, expected=expected):
    data = path.read_bytes()
  if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or 0 in data[:2]:
    raise InputError(
      name,
      expected="UTF-8 text",
      got="UTF-16 or binary data",
      fix="if it is text, convert it, as by `iconv -f UTF-16 -t UTF-8`",
    )
  found = []
  # Some editors start a file with a byte order mark.
  lines = data.removeprefix(codecs.BOM_UTF8).splitlines()
  for number, line in enumerate(lines, start=1):
    where = f"{name}:{number}"
    try:
      text = line.decode("utf-8").strip(_BLANK)
    except UnicodeDecodeError as error:
      before = line[: error.start].decode("utf-8")
      byte = line[error.start]
      problems.add(
        InputError(
          where,
          expected="UTF-8 text",
          got=f"byte 0x{byte:02X} at column {len(before) + 1}",
          fix="convert the file, as by `iconv -f LATIN1 -t UTF-8`",
        )
      )
    else:
      if text:
        found.append(Line(where, text))
  return found
