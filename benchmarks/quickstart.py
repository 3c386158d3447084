"""The quickstart's table: three seeds, beside the control that knows no speaker.

    python benchmarks/quickstart.py --workdir=runs/quickstart_table

Each seed draws other speakers, other sentences and another initialisation. The
control is the same adapter with one head for all speakers. Every arm trains once,
with the settings of experiments/quickstart.py, which were chosen on dev of seed 0;
test is scored once. What is done is not done again. Writes docs/quickstart.json and
docs/quickstart.md.
"""

from collections.abc import Sequence
from typing import Any

import results
from absl import app, flags, logging
from etils import epath

from hra import jobs, run, scoring
from hra.commands import configs, process

_OUT = results.define_out()
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/quickstart_table", "Where the runs go."
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many.")

ARMS = {"HRA": "both", "shared-only": "shared"}


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)
  process.set_up()
  rows = [
    _run(epath.Path(_WORKDIR.value), arm=arm, heads=heads, seed=seed)
    for seed in range(_SEEDS.value)
    for arm, heads in ARMS.items()
  ]
  about = results.about("quickstart")
  results.write(
    "quickstart",
    figures={**about, "runs": rows},
    markdown=_markdown(about, rows),
    out=_OUT.value,
  )


def _run(
  folder: epath.Path, *, arm: str, heads: str, seed: int
) -> dict[str, Any]:
  config = configs.load(configs.experiment("quickstart"))
  config.seed = config.synthetic.seed = seed
  config.adapter.heads = heads
  config.data.path = str(folder / f"seed-{seed}" / "data")
  parts = run.assemble(config, folder / f"seed-{seed}" / arm)
  trained = jobs.train(parts)
  dev = scoring.evaluate(parts, trained, split=config.data.dev_split)["overall"]
  scored = scoring.evaluate(parts, trained, split=config.data.test_split)
  overall = scored["overall"]
  return {
    "arm": arm,
    "seed": seed,
    "speakers": len(parts.tasks),
    "parameters": scored["parameters"],
    "backbone_wer": overall["backbone_wer"],
    "wer": overall["wer"],
    "wer_low": overall["wer_low"],
    "wer_high": overall["wer_high"],
    "dev_wer": dev["wer"],
    "worse_tasks": sum(
      task["wer"] > task["backbone_wer"] for task in scored["tasks"].values()
    ),
  }


def _markdown(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
  lines = [
    results.title(
      about,
      note=f"{rows[0]['speakers']} speakers a seed, held-out sentences, WER in per "
      "cent with 95% intervals.",
    ),
    "",
    "| seed | frozen | shared-only | HRA | HRA / frozen | HRA / shared-only |",
    "|---|---|---|---|---|---|",
  ]
  by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
  pairs = list(zip(by_arm["HRA"], by_arm["shared-only"], strict=True))
  for hra, shared in pairs:
    lines.append(
      f"| {hra['seed']} | {_percent(hra['backbone_wer'])} | {_rate(shared)} | "
      f"{_rate(hra)} | {hra['wer'] / hra['backbone_wer']:.2f} | "
      f"{hra['wer'] / shared['wer']:.2f} |"
    )
  frozen, hra, shared = (
    sum(values) / len(pairs)
    for values in (
      [pair[0]["backbone_wer"] for pair in pairs],
      [pair[0]["wer"] for pair in pairs],
      [pair[1]["wer"] for pair in pairs],
    )
  )
  lines += [
    f"| mean | {_percent(frozen)} | {_percent(shared)} | {_percent(hra)} | "
    f"{hra / frozen:.2f} | {hra / shared:.2f} |",
    "",
    "Parameters: "
    + "; ".join(
      f"{arm} {rows[0]['parameters']['shared']:,} shared and "
      f"{rows[0]['parameters']['per_task']:,} per speaker"
      for arm, rows in by_arm.items()
    )
    + f"; backbone {rows[0]['parameters']['backbone']:,}, frozen.",
    "",
  ]
  return "\n".join(lines)


def _rate(row: dict[str, Any]) -> str:
  low, high = _percent(row["wer_low"]), _percent(row["wer_high"])
  return f"{_percent(row['wer'])} ({low}-{high})"


def _percent(rate: float) -> str:
  return f"{100 * rate:.1f}"


if __name__ == "__main__":
  app.run(main)
