"""Imports run downward only: the rooms in their order."""

import ast
from pathlib import Path

import pytest

import hra

PACKAGE = Path(hra.__file__).parent

ORDER = (
  {"errors", "dims", "hardware", "keys"},
  {"cluster", "files"},
  {"processes"},
  {"joining"},
  {"config"},
  {"config_rules"},
  {"config_tree"},
  {"sharding"},
  {"data", "features", "nn"},
  {"decoders"},
  {"backbone"},
  {"adapters"},
  {"model"},
  {"checkpoint", "language_store", "submodels"},
  {"peft"},
  {"train", "evaluate"},
  {"members"},
  {"claim"},
  {"given", "run_data"},
  {"run"},
  {"planning"},
  {"scoring", "starts"},
  {"export"},
  {"jobs", "language_jobs"},
  {"sweeps", "growth"},
  {"serve"},
  {"commands"},
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}

FILES = sorted(PACKAGE.rglob("*.py"))


def _room(module: str) -> str:
  return module.split(".")[1]


def _imports(path: Path) -> set[str]:
  """Rooms that a file imports, wherever in the file it does."""
  rooms = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      if node.module == "hra":
        rooms |= {alias.name for alias in node.names}
      elif node.module.startswith("hra."):
        rooms.add(_room(node.module))
    elif isinstance(node, ast.Import):
      rooms |= {
        _room(alias.name) for alias in node.names if alias.name[:4] == "hra."
      }
  return rooms


@pytest.mark.parametrize(
  "path", FILES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_run_downward(path):
  parts = path.relative_to(PACKAGE).with_suffix("").parts
  room = parts[0]
  if room == "__init__":
    return
  for imported in _imports(path) - {room}:
    assert imported in LEVEL, f"{path}: room {imported!r} has no level"
    assert LEVEL[imported] < LEVEL[room], (
      f"{path}: {room} (level {LEVEL[room]}) imports {imported} "
      f"(level {LEVEL[imported]})"
    )


def test_every_room_has_a_level():
  rooms = {path.relative_to(PACKAGE).parts[0] for path in FILES}
  rooms = {room.removesuffix(".py") for room in rooms} - {"__init__"}
  assert rooms <= set(LEVEL)
