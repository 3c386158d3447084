"""`hra plan --show_sharding`: the golden table of the tiny Conformer on 2 x 2 x 2.

A difference is legitimate where the table of `hra.sharding` or what a run keeps was
changed on purpose; then

    python tests/planning/test_sharding_page.py
"""

from pathlib import Path

import tiny

from hra.config import AdapterConfig, Config, DataConfig, MeshConfig
from hra.planning import plan, sharding_page
from hra.planning.outlines import Outline

GOLDEN = Path(__file__).parents[1] / "goldens" / "sharding.txt"


def _page() -> str:
  config = Config(
    backbone=tiny.BACKBONE,
    adapter=AdapterConfig(width=8, heads="both"),
    data=DataConfig(tasks_per_batch=4, utterances_per_task=2),
    mesh=MeshConfig(data=2, fsdp=2, tensor=2, shard_rows="always"),
  )
  outline = Outline("tiny", tiny.BACKBONE, tiny.FRONTEND)
  found = plan.plan(config, outline, devices=8, tasks=6, seconds=1.0)
  assert found.kept_bytes - found.kept["batch"].device_bytes == sum(
    int(line.split()[-1].replace(",", ""))
    for line in sharding_page.text(found.leaves, found.mesh).splitlines()[1:-1]
  )
  return sharding_page.text(found.leaves, found.mesh) + "\n"


def test_every_leaf_lies_where_it_did():
  assert _page() == GOLDEN.read_text()


if __name__ == "__main__":
  GOLDEN.write_text(_page())
