"""The main job from start to end, on speech that is synthesised here.

    hra quickstart --workdir=runs/quickstart

Speakers with systematic, conflicting habits of speech adapt the bundled frozen
backbone in one job; each owns one small head. Ends with a table per speaker,
results.json, report.html and one Submodel file per speaker. The same command goes
on where it was interrupted.
"""

import time
from collections.abc import Sequence

from absl import flags
from etils import epath

from hra.commands import configs, process

_CONFIG = configs.define(configs.experiment("quickstart"))
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/quickstart", "The run's folder."
)


def main(argv: Sequence[str]) -> None:
  del argv
  start = time.monotonic()
  process.set_up()
  from hra import claim, jobs, run, scoring
  from hra.evaluate.report import write_report
  from hra.evaluate.table import table

  config = configs.from_flags()
  workdir = epath.Path(_WORKDIR.value)
  with claim.alone(workdir, begins=True):
    parts = run.assemble(config, workdir)
    print(run.describe(parts))
    trained = jobs.train(parts)
    folder = jobs.finish(parts, trained)
    results = scoring.evaluate(parts, trained, split=config.data.test_split)
    print(table(results))
    page = write_report([workdir], workdir / "report.html")
  task = parts.tasks[0]
  recordings = (workdir / "data" / "corpus" / "audio" / "test" / task).glob("*")
  recording = min(map(str, recordings), default="FILE.wav")
  print(
    f"\n{len(parts.tasks)} speakers adapted in "
    f"{time.monotonic() - start:.0f} s of wall time\n"
    f"results    {workdir / 'results.json'}\n"
    f"report     {page}\n"
    f"Submodels  {folder}\n"
    f"next: hra transcribe --workdir={workdir} --task={task} {recording}\n"
    f"      hra serve --workdir={workdir}"
  )


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("quickstart")
