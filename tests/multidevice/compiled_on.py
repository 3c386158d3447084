"""The step of 8 simulated devices, compiled as `hra plan --topology` compiles it.

    python compiled_on.py

Prints, of a mesh whose devices divide batch and backbone alike: bytes that were
planned and that XLA takes; FLOPs; the bytes of the largest array in a collective,
beside the largest that may be in one and beside a place's frames.
"""

import json

import jax
import tiny

from hra import hardware
from hra.config import AdapterConfig, Config, DataConfig, MeshConfig
from hra.planning import aot, hlo, links, outlines, plan
from hra.planning.topology import Topology

SECONDS = 4.0
FRAMES = 100
"""Of the encoder."""


def main() -> None:
  config = Config(
    adapter=AdapterConfig(width=8, heads="both"),
    data=DataConfig(tasks_per_batch=8, utterances_per_task=2),
    mesh=MeshConfig(data=1, fsdp=8, tensor=1),
  )
  outline = outlines.Outline("small", tiny.BACKBONE, tiny.FRONTEND)
  chips = Topology("simulated", hardware.CHIPS[0], jax.devices(), 1)
  sizes = {"tasks": 64, "seconds": SECONDS}
  told = plan.plan(config, outline, devices=8, **sizes)
  compiled = aot.compile_step(config, outline, chips, **sizes)
  program = hlo.parse(compiled.text)
  width = tiny.BACKBONE.width
  weights = width * max(tiny.BACKBONE.feed_forward, 2 * width, 32)
  print(
    json.dumps(
      {
        "kept": told.kept_bytes,
        "arguments": compiled.memory.arguments,
        "traced": told.estimates.flops / 8,
        "flops": compiled.flops,
        "fits": compiled.fits,
        "sent": {kind: sent.times for kind, sent in compiled.sent.items()},
        "largest": max(
          array.bytes
          for each in links.instructions(program)
          for array in each.arrays
        ),
        "rows": 8 * told.per_task * 4,
        "layer": weights * 4,
        "frames": 2 * FRAMES * width * 4,
      }
    )
  )


if __name__ == "__main__":
  main()
