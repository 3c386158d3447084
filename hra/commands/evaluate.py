"""Scores a finished run on a held-out split, beside the frozen backbone.

    hra evaluate --workdir=runs/mine

Writes results.json, transcripts.jsonl and report.html into the run's folder and
prints a table per task, with bootstrap intervals. Searches greedily, or as the run's
config.evaluate.search or these flags say:

    hra evaluate --workdir=runs/mine --beam=8 --language_model=runs/words/lm
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from hra import processes
from hra.commands import configs, process, searching
from hra.files import write_aside

_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder.")
_SPLIT = flags.DEFINE_string(
  "split", "", "A split of the run's data; empty is the configured test split."
)
flags.adopt_module_key_flags(searching)
_JSON = flags.DEFINE_string("json", "", "Also write results.json to this file.")


def main(argv: Sequence[str]) -> None:
  del argv
  process.set_up(several=True)
  from hra import claim, run, scoring
  from hra.evaluate.report import write_report
  from hra.evaluate.table import table

  workdir = epath.Path(configs.required(_WORKDIR, "runs/mine"))
  with claim.alone(workdir):
    parts = run.reopen(workdir)
    split = _SPLIT.value or parts.config.data.test_split
    results = scoring.evaluate(
      parts,
      run.trained_state(parts),
      split=split,
      search=searching.given(parts.config.evaluate.search),
    )
    if not processes.is_first():
      return
    print(table(results))
    if _JSON.value:
      write_aside(_JSON.value, (workdir / "results.json").read_bytes())
    print(f"wrote {write_report([workdir], workdir / 'report.html')}")
    for added in claim.enrolments(workdir):
      print(f"joined since: hra evaluate --workdir={added}")


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("evaluate")
