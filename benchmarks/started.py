"""An `hra` command that notes when it compiles what; benchmarks/startup.py starts it.

    STARTED_EVENTS=FILE python benchmarks/started.py VERB --flags

A line of JSON for each event of `jax.monitoring` that lasted: its name, when it began
and ended (seconds of the system's clock since boot, as everywhere in this benchmark),
what was traced or compiled. The listener is all that differs from `hra VERB`.
"""

import json
import os
import time
from typing import Any


def main() -> None:
  import jax

  file = open(os.environ["STARTED_EVENTS"], "w", buffering=1)  # noqa: SIM115

  def heard(event: str, seconds: float, **told: Any) -> None:
    now = time.monotonic()
    line = {"event": event, "from": now - seconds, "to": now}
    file.write(json.dumps(line | {"name": str(told.get("fun_name"))}) + "\n")

  jax.monitoring.register_event_duration_secs_listener(heard)
  from hra.commands import main as cli

  cli.run()


if __name__ == "__main__":
  main()
