"""What is told of growth: of made-up figures, and of a tiny step on two devices."""

import growth
import pytest
import tiny
import training


def _row(size, seconds):
  return {
    "size": size,
    "wall_seconds": seconds,
    "cpu_seconds": 2 * seconds,
    "flops": 1e9 * size,
    "temporary_bytes": 2**20,
    "state_bytes": size * 2**20,
  }


@pytest.mark.parametrize(("seconds", "met"), [(1.09, "is met"), (1.11, "not")])
def test_the_goal_is_of_two_sizes_of_the_table(seconds, met):
  table = [_row(16, 0.5), _row(128, 1.0), _row(16_384, seconds)]
  _, line = growth.goal(table)
  assert f"{seconds:.3f}" in line
  assert met in line
  assert growth.goal(table[:2]) == []


def test_ratios_are_to_the_first_size():
  lines = growth._table("layers", [_row(4, 0.5), _row(8, 1.5)])
  assert lines[-1] == (
    "| 8 | 1.5000 | 3.0000 | 8.00 | 1 | 8 | 3.000 | 3.000 | 2.000 |"
  )


def test_collectives_are_told_by_kind():
  sent = {"all-reduce": {"times": 3, "bytes": 2048}}
  rows = [
    {"devices": n, "tasks": 8, "flops": 1e9, "temporary_bytes": 0, "sent": each}
    for n, each in ((1, {}), (2, sent))
  ]
  lines = growth._sent(rows)
  assert lines[-2].endswith("| none |")
  assert lines[-1] == "| 2 | 1.00 | 0 | all-reduce 3, 2 |"


def test_a_plot_has_a_panel_for_each_axis(tmp_path):
  pytest.importorskip("matplotlib")
  path = tmp_path / "growth.png"
  table = [_row(4, 0.5), _row(8, 1.5)]
  growth.draw(path, {"devices": []})
  assert not path.exists()
  growth.draw(path, {"layers": table, "devices": []})
  one = len(path.read_bytes())
  growth.draw(path, {"layers": table, "rows": table})
  assert len(path.read_bytes()) > one


def test_the_table_and_the_recordings_grow(monkeypatch):
  backbone = training.random_backbone(tiny.BACKBONE)
  monkeypatch.setattr(training, "bundled", lambda config: backbone)
  asked = {}

  def make(config, **given):
    asked.update(given, width=config.adapter.width)
    return asked

  monkeypatch.setattr(training, "make", make)
  assert growth.of_rows(16)["tasks"] == 16
  assert asked["width"] == growth.NARROW
  assert growth.of_seconds(8)["seconds"] == 8
  deep = growth.of_layers(5)["backbone"].module.config
  assert (deep.layers, deep.width) == (5, tiny.BACKBONE.width)
