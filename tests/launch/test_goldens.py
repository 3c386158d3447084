"""What each renderer writes, as checked-in text: a change of it shows in a diff."""

import pytest
from launched import GOLDENS, RENDERED


@pytest.mark.parametrize("name", RENDERED)
def test_renderings_are_as_before(name):
  assert RENDERED[name]() == (GOLDENS / name).read_text(), (
    f"see what changed; if it is meant, PYTHONPATH=. python tests/launched.py "
    f"writes {name} again"
  )


def test_there_is_no_other_golden_file():
  assert {path.name for path in GOLDENS.iterdir()} == set(RENDERED)
