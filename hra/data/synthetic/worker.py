"""One process of `hra.data.synthetic.corpus`: a job in JSON as the argument in,
a line "ID SAMPLES" on standard output for every recording out.

A command line of its own rather than `multiprocessing`: a spawned child would
import the parent's main module (and JAX with it), a forked one is unsafe once
JAX has threads.
"""

import json
import signal
import sys
from pathlib import Path

from hra import config_tree
from hra.config import SyntheticConfig
from hra.data.synthetic import corpus


def main() -> None:
  # Noted, not raised: espeak-ng's callbacks swallow what is raised in them.
  asked: list[int] = []
  signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
  job = json.loads(sys.argv[1])
  for name, samples in corpus.speak_all(
    Path(job["folder"]),
    spec=config_tree.from_dict(SyntheticConfig, job["spec"]),
    share=job["share"],
    shares=job["shares"],
  ):
    print(name, samples, flush=True)
    if asked:
      sys.exit(1)  # removes its folder


if __name__ == "__main__":
  main()
