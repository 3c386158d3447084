"""What was rendered -> the scheduler's own command, and what it answers."""

import os
import subprocess
from collections.abc import Sequence

from hra.errors import InputError
from launch.job import Submission


def submit(submission: Submission, scheduler: str) -> str:
  """What the scheduler answers.

  Raises:
    InputError: its command isn't here, or refuses.
  """
  program = submission.command[0]
  try:
    done = subprocess.run(
      submission.command,
      input=submission.text,
      text=True,
      capture_output=True,
    )
  except FileNotFoundError as error:
    raise InputError(
      program,
      expected=f"{scheduler}'s command on this machine",
      got="none",
      fix="--dry_run prints what it would be given",
    ) from error
  if done.returncode:
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    raise InputError(program, expected="that it takes the job", got=said)
  return done.stdout.strip()


def check_set(secrets: Sequence[str]) -> None:
  """Refuses a job whose secrets would be missing where it runs."""
  for name in secrets:
    if name not in os.environ:
      raise InputError(
        f"--secrets={name}", expected="a variable that is set here", got="none"
      )
