"""The exceptions that commands print as a single line."""


class InputError(ValueError):
  """Something that the user gave can't be used.

  The message is one line: where it stands, what was expected, what was found,
  and what to do about it.
  """

  def __init__(self, where: object, *, expected: str, got: str, fix: str = ""):
    message = f"{where}: expected {expected}, got {got}"
    super().__init__(f"{message}; {fix}" if fix else message)
    self.where = str(where)
    self.expected = expected
    self.got = got
    self.fix = fix


class StorageError(InputError):
  """A disk or a bucket refuses: full, forbidden, missing or out of reach."""


class Interrupted(Exception):
  """A job was asked to stop, and saved first."""
