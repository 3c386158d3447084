"""Where a start's seconds go, of made-up events; and a command that ends too soon."""

import json
import os
import sys

import pytest
import startup
import startup_figures
from absl import flags

from hra.errors import InputError

_CORE = "/jax/core/compile/"
_NAMES = {
  "tracing": "jaxpr_trace_duration",
  "lowering": "jaxpr_to_mlir_module_duration",
  "compiling": "backend_compile_duration",
}


def _line(phase, began, ended):
  event = {"event": _CORE + _NAMES[phase], "from": began, "to": ended}
  return json.dumps(event | {"name": "step"})


def _events(*spans):
  return startup_figures.read_events("\n".join(_line(*each) for each in spans))


@pytest.mark.parametrize(
  ("spans", "seconds"),
  [
    ([], 0),
    ([(1, 2), (5, 7)], 3),
    ([(1, 9), (2, 3), (4, 5)], 8),
    ([(4, 6), (1, 5)], 5),
  ],
)
def test_what_nests_counts_once(spans, seconds):
  assert startup_figures.covered(spans) == seconds


def test_phases_and_the_rest_sum_to_all():
  events = _events(
    ("tracing", 12, 15),
    ("tracing", 12.5, 13),
    ("lowering", 15, 16),
    ("compiling", 16, 18),
    ("compiling", 20, 30),  # after the first step
  )
  told = startup_figures.shares(
    events, {"jax": 1.5, "hra": 0.5}, began=10, ended=19
  )
  assert told == {
    "imports": 2,
    "tracing": 3,
    "lowering": 1,
    "compiling": 2,
    "rest": 1,
  }
  assert startup_figures.programs(events, ended=19) == 1


def test_a_line_that_a_kill_cut_off_and_other_events_are_none():
  text = "\n".join(
    [
      json.dumps({"event": "/other", "from": 1, "to": 2, "name": ""}),
      _line("compiling", 1, 2),
      _line("tracing", 3, 4)[:20],
    ]
  )
  (event,) = startup_figures.read_events(text)
  assert event.phase == "compiling"


def test_imports_are_summed_by_package():
  text = (
    "import time: self [us] | cumulative | imported package\n"
    "import time:      1000 |       1000 |     jax.core\n"
    "import time:       500 |       1500 |   jax\n"
    "something else\n"
    "import time:   2000000 |    2000000 | hra.run\n"
  )
  assert startup_figures.imports(text) == {"hra": 2.0, "jax": 0.0015}
  assert next(iter(startup_figures.imports(text))) == "hra"


@pytest.fixture
def known_flags():
  values = flags.FlagValues()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(flags, "FLAGS", values)
    patch.setattr(startup.flags, "FLAGS", values)
    flags.DEFINE_float("limit", 20.0, "", flag_values=values)
    values(["test"])
    yield values


def _commanded(monkeypatch, code):
  monkeypatch.setattr(startup, "_asked", lambda *_: [])
  python = [sys.executable, "-c", code]
  popen = startup.subprocess.Popen
  monkeypatch.setattr(
    startup.subprocess, "Popen", lambda _, **given: popen(python, **given)
  )


def test_a_start_is_timed_until_something_is_there(
  known_flags, monkeypatch, tmp_path
):
  code = (
    "import time; sum(range(10**7)); print('text', flush=True); time.sleep(60)"
  )
  _commanded(monkeypatch, code)
  run = startup.start("transcribe, cold", tmp_path, tmp_path)
  assert run.cpu > 0.05
  assert run.wall < 60


def test_a_process_that_has_ended_still_has_its_cpu_seconds(known_flags):
  code = "sum(range(10**7))"
  process = startup.subprocess.Popen([sys.executable, "-c", code])
  os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
  assert startup._await(process, lambda: True) > 0.05
  process.wait()


def test_a_command_that_fails_says_why(known_flags, monkeypatch, tmp_path):
  _commanded(monkeypatch, "raise SystemExit('no such folder')")
  with pytest.raises(InputError, match="no such folder"):
    startup.start("transcribe, cold", tmp_path, tmp_path)


def test_medians_ranges_and_goals():
  runs = [
    startup.Started(wall, cpu, 0, "") for wall, cpu in ((4, 3), (9, 8), (5, 5))
  ]
  told = startup.figures(runs)
  assert (told["wall_seconds"], told["wall_range"]) == (5, [4, 9])
  assert (told["cpu_seconds"], told["cpu_range"]) == (5, [3, 8])
  explained = {
    "explained_seconds": 5.0,
    "shares": {"imports": 2.0, "rest": 3.0},
    "slowest_imports": {"jax": 1.0},
    "programs": 3,
  }
  about = dict.fromkeys(("command", "date", "hardware", "versions"), "x")
  slow = {**told, "wall_seconds": 5.01}
  page = startup.markdown(
    about, {"train, cold": told | explained, "train, cached": slow | explained}
  )
  assert "| train, cold | 5.0 (4.0-9.0) | 5.0 (3.0-8.0) | 20, met | 3 |" in page
  assert "5, **not** met" in page
