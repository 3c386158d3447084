"""The gate before batches are timed, at a tiny size; and what a page says of them."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import mixed
import mixed_page

from hra.errors import InputError

TINY = {
  "whisper": {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_attention_heads": 2,
  },
  "conformer": {"width": 16, "layers": 2, "heads": 2, "vocabulary": 32},
}
TABLES = (4, 8)
CASES = {
  *("torch", "ours", "PEFT mixed", "PEFT loop", "ragged, 4"),
  *(
    f"{name}, {rows}"
    for name in ("stacked torch", "gather", "one-hot")
    for rows in TABLES
  ),
}


@pytest.fixture(scope="module", params=sorted(TINY))
def outputs(request, tmp_path_factory):
  """What each contestant says of three speakers' 16 recordings."""
  made = mixed.make(
    tmp_path_factory.mktemp("mixed"),
    request.param,
    count=3,
    **TINY[request.param],
  )
  cell = mixed.Cell(request.param, 0.32, 3)
  runs = mixed.contestants(made, cell, TABLES)
  return {name: np.array(run()) for name, run in runs.items()}


def test_all_contestants_agree(outputs):
  assert outputs.keys() == CASES
  apart = mixed.check_parity(outputs, where="tiny")
  assert apart.keys() == CASES
  assert 0 < max(apart.values()) <= mixed.APART


@pytest.mark.parametrize("name", ["gather, 8", "stacked torch, 4", "ours"])
def test_a_contestant_that_is_wrong_is_told(outputs, name):
  wrong = outputs[name].copy()
  wrong[5] += 1e-3 * wrong.std()
  with pytest.raises(
    InputError, match=f"tiny: {name}: expected outputs within"
  ):
    mixed.check_parity(outputs | {name: wrong}, where="tiny")


def test_loras_that_do_nothing_are_told(outputs):
  deaf = {
    name: outputs["ours" if mixed_page.base_of(name) == "ours" else "torch"]
    for name in outputs
  }
  with pytest.raises(InputError, match="LoRAs that are heard"):
    mixed.check_parity(deaf, where="tiny")


def _case(*walls):
  return {"walls": list(walls), "cpus": list(walls), "apart": 1e-7}


CELL = {
  "model": "whisper",
  "seconds": 2.0,
  "speakers": 4,
  "recordings": 16,
  "cases": {
    "torch": _case(1.0, 2.0, 1.0),
    "ours": _case(2.0, 2.0, 2.0),
    "PEFT mixed": _case(3.0, 6.0, 4.0),
    "PEFT loop": _case(8.0, 8.0, 8.0),
    "stacked torch, 16": _case(1.0, 2.1, 1.2),
    "gather, 16": _case(2.2, 2.2, 2.4),
  },
}


def test_overhead_is_over_one_s_own_base():
  assert mixed_page.overhead(CELL, "PEFT mixed") == 3.0
  assert mixed_page.overhead(CELL, "gather, 16") == pytest.approx(1.1)


def test_rows_that_are_lost_are_counted():
  assert mixed_page.ahead([CELL], "PEFT mixed") == {
    "of": 1,
    "overhead": 1,
    "seconds": 1,
  }
  assert mixed_page.ahead([CELL], "stacked torch") == {
    "of": 1,
    "overhead": 0,
    "seconds": 0,
  }


def test_a_page_and_a_plot(tmp_path):
  about = {
    "command": "python benchmarks/mixed.py",
    "date": "2026-01-01",
    "hardware": "none",
    "versions": "none",
    "threads": 2,
    "blocks": 3,
    "most_seconds": 200,
  }
  page = mixed_page.page(about, [CELL])
  assert "| PEFT mixed | 4.000 (3.00) |" in page
  assert "less overhead in 0 of 1 cells, fewer seconds in 0." in page
  mixed_page.plot([CELL], tmp_path / "mixed.png")
  assert (tmp_path / "mixed.png").read_bytes().startswith(b"\x89PNG")
