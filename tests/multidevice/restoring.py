"""Restores a backbone on 4 simulated devices of each of 2 processes.

    python restoring.py FOLDER

Prints [bytes of its parameters, bytes that this process came to hold at most].
"""

import json
import resource
import sys

import jax

from hra import joining
from hra.backbone import store
from hra.config import MeshConfig
from hra.sharding import make_mesh


def main(folder: str) -> None:
  joining.join()
  mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
  before = _most()
  stored = store.load(folder, mesh=mesh)
  jax.block_until_ready(stored.module)
  whole = sum(leaf.nbytes for leaf in jax.tree.leaves(stored.module))
  print(json.dumps([whole, _most() - before]))


def _most() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
  main(sys.argv[1])
