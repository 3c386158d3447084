"""What is said of steps and registrations whose figures are made up."""

import adapting_ours as ours
import adapting_page
import adapting_registration as registration
import numpy as np
import pytest

ABOUT = {
  "command": "python benchmarks/adapting.py",
  "date": "2026-01-02",
  "hardware": "2 cores",
  "versions": "jax 1",
  "setting": "a Conformer",
}


def contestant(*walls, temporaries=None):
  return {
    "walls": list(walls),
    "cpus": [2 * wall for wall in walls],
    "first_seconds": 3.0,
    "temporaries": temporaries,
  }


def found():
  shape = ours.Shape(8, 2, 4.0)._asdict()
  return {
    "cells": [
      {
        "shape": shape,
        "gate": {
          "gradients": {
            "PEFT, one by one": {"loss": 1e-7, "gradient": 2e-6},
            "stacked torch": {"loss": 3e-7, "gradient": 1e-6},
          },
          "joint steps": 4e-5,
        },
        "contestants": {
          "PEFT, one by one": contestant(2.0, 4.0, 9.0),
          "stacked torch": contestant(0.5, 1.5, 3.0),
          ours.JOINT: contestant(1.0, 1.0, 3.0, temporaries=2**21),
          ours.ALONE: contestant(2.0, 2.0, 6.0, temporaries=2**20),
        },
      }
    ],
    "memory": {
      "shape": shape,
      "contestants": {ours.JOINT: {"before": 2**28, "peak": 2**30}},
    },
    "registration": {
      "PEFT add_adapter": registration.line([1.0, 2.0], 4)._asdict()
    },
  }


def test_rows_that_we_lose_stay():
  page = adapting_page.page(ABOUT, found())
  row = "| 8 x 2 x 4 s | stacked torch | 1.500 | 0.500-3.000 | 3.000 | 1.00 |"
  assert row in page
  assert "| PEFT, one by one | 4.000 | 2.000-9.000 | 8.000 | 3.00 |" in page
  assert "| ours, joint | 1.000 | 1.000-3.000 | 2.000 | 1.00 | 1.00 |" in page
  assert "losses were 3e-07 from PEFT's in 64 bits" in page
  assert "gradients of the LoRAs 2e-06" in page
  assert "alone 4e-05 of their way" in page
  assert "| ours, joint | 1,024 | 256 |" in page
  assert "| PEFT add_adapter | 10.00 | 2 | 1000.00 | 4000.00 |" in page


def test_a_line_is_gone_on():
  spent = registration.line([0.1, 0.2, 0.3], 1000)
  assert spent.seconds == pytest.approx(0.1 * 1000 * 1001 / 2)
  assert (spent.timed, spent.first) == (3, 0.1)
  assert spent.last == pytest.approx(100)


def test_what_was_timed_counts_as_it_was():
  seconds = np.asarray([5.0, 1.0, 1.5, 2.0])
  spent = registration.line(seconds, 4)
  assert spent.seconds == pytest.approx(9.5)
  assert spent.last == 2.0


def test_the_median_of_several_times_is_told(monkeypatch):
  clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 23.0])
  monkeypatch.setattr(registration.time, "perf_counter", lambda: next(clock))
  spent = registration.whole(lambda: 0, 6)
  assert spent == registration.Spent(3.0, 6, 0.5, 0.5)
