"""A sweep's table and plot: every run in its row, seeds averaged, axes sane."""

import itertools
import json
import math

import pytest

from hra.errors import InputError
from hra.evaluate.sweep import read_sweep, short_names, sweep_table
from hra.evaluate.sweep_figure import MOST_LINES, sweep_plot


def _entry(
  wer, *, size=64, label="", name=None, status="done", split="test", **values
):
  values = {name.replace("__", "."): value for name, value in values.items()}
  results = None
  if status == "done":
    results = {
      "split": split,
      "overall": {
        "wer": wer,
        "wer_low": wer - 0.01,
        "wer_high": wer + 0.01,
        "backbone_wer": 0.69,
      },
      "parameters": {"per_task": size, "shared": 12345},
    }
  return {
    "name": name or ",".join(f"{key}={values[key]}" for key in sorted(values)),
    "label": label,
    "values": values,
    "status": status,
    "error": None,
    "results": results,
  }


def _sweep(folder, *entries):
  (folder / "sweep.json").write_text(json.dumps({"runs": entries}))
  return read_sweep(folder)


def _wide(wer, width, seed=0, **more):
  return _entry(wer, adapter__width=width, seed=seed, **more)


def test_rows_follow_the_values_as_numbers_seeds_last(tmp_path):
  sweep = _sweep(
    tmp_path,
    *(_wide(0.3, width, seed) for width in (128, 32, 64) for seed in (1, 0)),
  )
  assert sweep.fields == ("adapter.width", "seed")
  order = [tuple(run.values.values()) for run in sweep.runs]
  assert order == sorted(order)
  lines = sweep_table(sweep).splitlines()
  assert lines[0].split()[:3] == ["width", "seed", "WER"]
  assert lines[2].split() == [
    *("32", "0", "30.0", "29.0-31.0", "69.0", "64", "12,345")
  ]
  assert len(lines) == 2 + 6


def test_runs_scored_on_several_splits_say_which(tmp_path):
  sweep = _sweep(
    tmp_path,
    _wide(0.3, 8),
    _wide(0.2, 8, seed=1, split="dev"),
    _wide(0.1, 8, seed=2, status="failed"),
  )
  assert sweep.fields == ("split", "seed")
  shown = [line.split()[:2] for line in sweep_table(sweep).splitlines()]
  assert shown[0] == ["split", "seed"]
  assert [run.values["split"] for run in sweep.runs] == ["-", "dev", "test"]


def test_what_does_not_vary_has_no_column_and_failures_say_so(tmp_path):
  sweep = _sweep(
    tmp_path,
    _entry(0.3, adapter__width=8, adapter__family="hra"),
    _entry(0.3, adapter__width=16, adapter__family="hra", status="failed"),
  )
  head, _, done, failed = sweep_table(sweep).splitlines()
  assert "family" not in head
  assert done.endswith("done")
  assert failed.split() == ["16", *["-"] * 5, "failed"]
  assert len(sweep.done) == 1


def test_labels_have_a_column(tmp_path):
  sweep = _sweep(
    tmp_path,
    _entry(0.3, adapter__width=8, label="small", name="small"),
    _entry(0.2, adapter__width=9, label="large", name="large"),
  )
  lines = sweep_table(sweep).splitlines()
  assert [line.split()[0] for line in lines] == [
    "run",
    lines[1],
    "small",
    "large",
  ]


def test_backbones_that_differ_have_no_line(tmp_path):
  entries = [
    _wide(wer, width, seed)
    for width, seed, wer in ((8, 0, 0.4), (8, 1, 0.5), (16, 0, 0.3))
  ]
  assert sweep_plot(_sweep(tmp_path, *entries)).backbone == 0.69
  entries[1]["results"]["overall"]["backbone_wer"] = 0.55
  assert sweep_plot(_sweep(tmp_path, *entries)).backbone is None


def test_short_names_are_as_long_as_they_have_to_be():
  fields = ["adapter.width", "backbone.width", "train.steps", "seed", "a.seed"]
  assert short_names(fields) == {
    "adapter.width": "adapter.width",
    "backbone.width": "backbone.width",
    "train.steps": "steps",
    "seed": "seed",
    "a.seed": "a.seed",
  }


def test_seeds_are_averaged_and_their_range_shown(tmp_path):
  rates = {(32, 0): 0.40, (32, 1): 0.50, (64, 0): 0.30, (64, 1): 0.34}
  plot = sweep_plot(
    _sweep(tmp_path, *(_wide(wer, *key) for key, wer in rates.items()))
  )
  (line,) = plot.lines
  assert plot.by == "adapter.width"
  assert plot.seeds == 2
  assert plot.backbone == 0.69
  for point, (mean, low, high) in zip(
    line.points, [(0.45, 0.40, 0.50), (0.32, 0.30, 0.34)], strict=True
  ):
    for at, rate in ((point.y, mean), (point.low, low), (point.high, high)):
      assert at == pytest.approx(100 - plot.y.at(rate), abs=0.02)
  assert "45.0% (40.0 to 50.0 over 2 seeds)" in line.points[0].title


def test_one_seed_shows_the_interval_beside_several_none(tmp_path):
  alone = sweep_plot(_sweep(tmp_path, _wide(0.4, 32), _wide(0.3, 64)))
  assert alone.seeds == 1
  for point in alone.lines[0].points:
    assert point.high < point.y < point.low  # y points downward
  mixed = sweep_plot(
    _sweep(tmp_path, _wide(0.4, 32), _wide(0.42, 32, 1), _wide(0.3, 64))
  )
  assert mixed.lines[0].points[1].low is None


@pytest.mark.parametrize(
  ("values", "log"),
  [
    ((32, 64, 128), True),
    ((1e-3, 3e-3, 1e-2), True),
    ((1, 100), True),
    ((10, 20, 30), False),
    ((10, 20, 30, 40, 50), False),
    ((32, 48), False),
    ((0, 1, 10, 100), False),
  ],
)
def test_widths_stand_on_a_log_axis_and_what_grows_evenly_does_not(
  tmp_path, values, log
):
  plot = sweep_plot(_sweep(tmp_path, *(_wide(0.3, each) for each in values)))
  assert plot.log == log
  places = [point.x for point in plot.lines[0].points]
  scaled = [math.log(value) if log else value for value in values]
  assert places == sorted(places)
  assert places[0] > 0
  assert places[-1] < 100
  parts = [(at - places[0]) / (places[-1] - places[0]) for at in places]
  spread = scaled[-1] - scaled[0]
  expected = [(each - scaled[0]) / spread for each in scaled]
  assert parts == pytest.approx(expected, abs=1e-3)


def test_labels_of_the_axis_do_not_overlap(tmp_path):
  values = [1, 2, *range(100, 1000, 10)]
  plot = sweep_plot(_sweep(tmp_path, *(_wide(0.3, each) for each in values)))
  places = [tick.at for tick in plot.x.ticks]
  gaps = [b - a for a, b in itertools.pairwise(places)]
  assert min(gaps) >= 7
  assert plot.x.ticks[-1].label == "990"


def test_other_fields_make_lines(tmp_path):
  sweep = _sweep(
    tmp_path,
    *(
      _wide(0.3, width, adapter__heads=heads)
      for width in (32, 64, 128)
      for heads in ("personal", "both")
    ),
  )
  lines = sweep_plot(sweep).lines
  assert [line.name for line in lines] == ["heads both", "heads personal"]
  assert [len(line.points) for line in lines] == [3, 3]


def test_the_best_lines_are_kept_of_many(tmp_path):
  sweep = _sweep(
    tmp_path,
    *(
      _wide(0.3 + index / 100, width, name_=f"n{index}")
      for index in range(9)
      for width in (1, 2)
    ),
  )
  plot = sweep_plot(sweep)
  assert [line.name for line in plot.lines] == [
    f"name_ n{index}" for index in range(MOST_LINES)
  ]
  assert plot.hidden == 3


def test_families_are_compared_by_their_parameters(tmp_path):
  sweep = _sweep(
    tmp_path,
    *(
      _wide(0.3, width, adapter__family=family, size=width * factor)
      for family, factor in (("hra", 10), ("residual", 70))
      for width in (8, 16)
    ),
  )
  plot = sweep_plot(sweep)
  assert (plot.by, plot.log) == ("parameters per task", True)
  assert [line.name for line in plot.lines] == ["family hra", "family residual"]
  assert [len(line.points) for line in plot.lines] == [2, 2]


def test_labelled_runs_are_compared_by_their_parameters(tmp_path):
  sweep = _sweep(
    tmp_path,
    _entry(0.3, label="small", name="small", size=10, adapter__width=8),
    _entry(0.2, label="large", name="large", size=99, adapter__width=16),
  )
  plot = sweep_plot(sweep)
  assert plot.by == "parameters per task"
  (line,) = plot.lines
  assert [point.title.split(",")[0] for point in line.points] == [
    "small",
    "large",
  ]


def test_of_labelled_runs_each_family_is_a_line(tmp_path):
  """Whatever else varies among them, and none is hidden."""
  runs = [
    _entry(
      0.3,
      label=f"{family}-{width}",
      name=f"{family}-{width}",
      size=factor * width,
      adapter__family=family,
      adapter__width=width,
      adapter__norm="frozen" if family == "hra" else f"n{width}",
    )
    for family, factor in (("hra", 10), ("residual", 70), ("lora", 33))
    for width in (8, 16, 32)
  ]
  plot = sweep_plot(_sweep(tmp_path, *runs))
  assert [line.name for line in plot.lines] == [
    "family hra",
    "family lora",
    "family residual",
  ]
  assert [len(line.points) for line in plot.lines] == [3, 3, 3]
  assert plot.hidden == 0
  assert "lora-16" in plot.lines[1].points[1].title


def test_labels_stay_lines_where_an_axis_gives_each_several_points(tmp_path):
  runs = [
    _entry(
      0.3,
      label=label,
      name=f"{label}-{width}",
      size=factor * width,
      adapter__family=label[:3],
      adapter__width=width,
    )
    for label, factor in (("hra a", 10), ("hra b", 20), ("lor", 33))
    for width in (8, 16)
  ]
  plot = sweep_plot(_sweep(tmp_path, *runs))
  assert {line.name for line in plot.lines} == {"hra a", "hra b", "lor"}


def test_there_is_no_plot_without_a_direction(tmp_path):
  assert sweep_plot(_sweep(tmp_path, _wide(0.3, 8))) is None
  seeds = [_entry(0.3, seed=seed) for seed in (0, 1)]
  assert sweep_plot(_sweep(tmp_path, *seeds)) is None
  words = [_entry(0.3, adapter__norm=each) for each in ("frozen", "per_task")]
  assert sweep_plot(_sweep(tmp_path, *words)) is None
  sizes = [
    _entry(0.3, adapter__family=family, size=size)
    for family, size in (("hra", 9), ("lora", 99))
  ]
  assert sweep_plot(_sweep(tmp_path, *sizes)) is None
  failed = [_wide(0.3, width, status="failed") for width in (8, 16)]
  assert sweep_plot(_sweep(tmp_path, *failed)) is None


def test_damaged_lists_are_one_clear_line(tmp_path):
  with pytest.raises(InputError, match="hra sweep"):
    read_sweep(tmp_path)
  for text in ("{", "{}", '{"runs": [{}]}', '{"runs": 3}'):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep\.json") as caught:
      read_sweep(tmp_path)
    assert "\n" not in str(caught.value)
