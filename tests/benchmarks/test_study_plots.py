"""The study's plots: each writes a PNG of README's width and hides no name."""

import itertools
import struct

import pytest

pytest.importorskip("matplotlib")
import study_plots as plots


def rate(wer, *, half=0.02):
  return {"wer": wer, "low": wer - half, "high": wer + half}


def sizes(*rates):
  return [
    {"parameters": 400 * 2**i, **rate(wer)} for i, wer in enumerate(rates)
  ]


def width_of(path):
  """In pixels, from the PNG's header."""
  head = path.read_bytes()[:24]
  assert head[:8] == b"\x89PNG\r\n\x1a\n"
  return struct.unpack(">I", head[16:20])[0]


@pytest.fixture
def drawn(monkeypatch):
  """The axes of the plots, kept when they are written."""
  kept = []
  separate = plots._separate

  def keep(texts):
    kept.extend(text.axes for text in texts[:1])
    separate(texts)

  monkeypatch.setattr(plots, "_separate", keep)
  return kept


def test_parameters_are_drawn_with_every_family_named_below(tmp_path, drawn):
  families = {
    "HRA": sizes(0.5, 0.45, 0.4),
    "residual": sizes(0.51, 0.46, 0.405),
    "BitFit": sizes(0.44),
  }
  levels = {"frozen": rate(0.6), "shared": rate(0.605)}
  panel = {"families": families, "levels": levels}
  path = tmp_path / "parameters.png"
  plots.wer_by_parameters({"joint": panel, "single": panel}, path=path)
  assert width_of(path) == 900
  assert [axis.get_title(loc="left") for axis in drawn] == ["joint", "single"]
  for axis in drawn:
    assert {text.get_text() for text in axis.texts} == {"frozen", "shared"}
    boxes = [text.get_window_extent() for text in axis.texts]
    for first, second in itertools.combinations(boxes, 2):
      assert not first.overlaps(second)
    colours = [line.get_color() for line in axis.lines]
    assert len(set(colours)) >= 4
  (legend,) = drawn[0].figure.legends
  assert [text.get_text() for text in legend.get_texts()] == [*families]
  page, box = drawn[0].figure.bbox, legend.get_window_extent()
  assert page.x0 <= box.x0 <= box.x1 <= page.x1
  for axis in drawn:
    assert not box.overlaps(axis.get_window_extent())


def test_recordings_stand_at_even_steps_in_their_order(tmp_path, drawn):
  points = [{"recordings": n, **rate(0.5 - n / 200)} for n in (40, 5, 10)]
  figures = {
    "methods": {"HRA head": points, "embedding": points[:1]},
    "levels": {"mean embedding": rate(0.55), "nearest speaker": rate(0.555)},
  }
  path = tmp_path / "recordings.png"
  plots.wer_by_recordings(figures, path=path)
  assert width_of(path) == 900
  (axis,) = drawn
  assert [label.get_text() for label in axis.get_xticklabels()] == [
    "5",
    "10",
    "40",
  ]
  line = axis.lines[0]
  assert line.get_ydata() == pytest.approx([0.475, 0.45, 0.3])
  assert line.get_xdata() == pytest.approx([0, 1, 2], abs=0.05)


def test_speakers_are_drawn_by_group_and_bars_in_their_order(tmp_path, drawn):
  speakers = [
    {"joint": 0.3, "alone": 0.35, "group": "mild"},
    {"joint": 0.7, "alone": 0.6, "group": "severe"},
  ]
  plots.joint_and_alone(speakers, path=tmp_path / "joint.png")
  arms = [{"name": name, **rate(0.4)} for name in ("HRA", "no recurrence")]
  plots.ablations(arms, reference="HRA", path=tmp_path / "bars.png")
  scatter, bars = drawn
  assert [
    (label.get_text(), marks.get_offsets().tolist())
    for label, marks in zip(
      scatter.get_legend().texts, scatter.collections, strict=True
    )
  ] == [("mild (1)", [[0.35, 0.3]]), ("severe (1)", [[0.6, 0.7]])]
  assert [bar.get_width() for bar in bars.patches] == [0.4, 0.4]
  assert [label.get_text() for label in bars.get_yticklabels()] == [
    "HRA",
    "no recurrence",
  ]
  assert width_of(tmp_path / "joint.png") == width_of(tmp_path / "bars.png")


def test_conditions_stand_apart_and_arms_side_by_side(tmp_path, drawn):
  conditions = {
    name: {"none": rate(wer), "masks": rate(wer / 2)}
    for name, wer in (("clean", 0.2), ("noise", 0.6))
  }
  path = tmp_path / "conditions.png"
  plots.wer_by_condition(conditions, path=path)
  assert width_of(path) == 900


def test_bars_of_time_end_with_their_sum(tmp_path, monkeypatch):
  seen = []
  limits = plots.Axes.invert_yaxis
  monkeypatch.setattr(
    plots.Axes,
    "invert_yaxis",
    lambda axis: (seen.append(axis), limits(axis)),
  )
  bars = {"one job": {"start": 1, "steps": 3}, "each": {"start": 9, "steps": 3}}
  path = tmp_path / "time.png"
  plots.parts_of_time(
    bars, parts=("start", "steps"), label="seconds", path=path
  )
  assert width_of(path) == 900
  (axis,) = seen
  assert [text.get_text() for text in axis.texts] == ["4", "12"]
  assert [bar.get_width() for bar in axis.patches] == [1, 9, 3, 3]
  assert [bar.get_x() for bar in axis.patches] == [0, 0, 1, 9]
  (legend,) = axis.figure.legends
  assert [text.get_text() for text in legend.get_texts()] == ["start", "steps"]
