"""`hra report`: finished runs -> one self-contained HTML page.

    hra report --run=runs/a
    hra report --run=runs/a --run=runs/b --out=compared.html
    hra report --sweep=runs/widths

The page shows word error rates before and after adaptation, training curves,
what a task costs, and the worst utterances. Several runs are compared on top; of
a sweep, by a table and a plot of what varies.
"""

import sys
from collections.abc import Sequence

from absl import flags
from etils import epath

from hra.commands import configs
from hra.errors import InputError
from hra.evaluate.report import write_report, write_sweep_report

_RUN = flags.DEFINE_multi_string(
  "run", [], "Folder of a finished run; repeat it to compare runs."
)
_SWEEP = flags.DEFINE_string(
  "sweep", "", "Instead: the --workdir of `hra sweep`, for its finished runs."
)
_OUT = flags.DEFINE_string(
  "out",
  "",
  "The page's path. Default: report.html in the (first) run's or the sweep's "
  "folder.",
)


def main(argv: Sequence[str]) -> None:
  """Writes the report and prints its path.

  Raises:
    InputError: no run, or a run that is not finished; runs and a sweep.
  """
  del argv
  if _SWEEP.value:
    if _RUN.value:
      raise InputError(
        "--sweep", expected="a sweep, or runs", got="both", fix="give one"
      )
    page = write_sweep_report(_SWEEP.value, _OUT.value or None)
    sys.stdout.write(f"report: {page}\n")
    return
  runs = configs.required(_RUN, "FOLDER")
  out = _OUT.value or epath.Path(runs[0]) / "report.html"
  page = write_report(runs, out)
  sys.stdout.write(f"report: {page}\n")


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("report")
