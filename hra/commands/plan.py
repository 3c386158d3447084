"""What an experiment would take on N devices, without them, its data or its backbone.

    hra plan --config=experiments/adapt.py --backbone=nvidia/parakeet-ctc-0.6b \\
      --devices=8 --tasks=1000 --seconds=20 --config.backbone.dtype=bfloat16

--backbone is the name of a public checkpoint (google/medasr,
nvidia/parakeet-ctc-0.6b, nvidia/parakeet-ctc-1.1b, facebook/w2v-bert-2.0, and six
sizes of openai/whisper), a folder of one or of a backbone, or `tiny`; without it the
configuration's. Nothing is downloaded and no array is made.

Numbers and bytes of what is kept are exact, and FLOPs those of the step as it is
traced, each layer counted. Temporaries, and so the peak, are an estimate for the
longest length bucket: 0.6 to 1.0 of what XLA took on a CPU and, on an H100, 1.3 to 1.7
of what it took where that was more than 200 MiB, and 0.6 of a small one. --compile has
XLA say it for the platform that is here.

    hra plan --config=experiments/usm_2b_euphonia.py --topology=v5e:16x16

compiles the step of all chips for a topology of TPUs, of which none has to be here:
libtpu does it (`pip install 'hra[tpu]'`), in minutes. Memory, collectives and FLOPs of
a chip are XLA's own; a step that doesn't fit ends with code 2.

--show_sharding adds a line for each parameter, moment and row: its path, shape, type,
the mesh axes that divide it, and its bytes on each device.
"""

import sys
from collections.abc import Sequence

from absl import flags

from hra.commands import configs
from hra.errors import InputError
from hra.files import write_json

_CONFIG = configs.define(configs.experiment("adapt"))
_BACKBONE = flags.DEFINE_string(
  "backbone", "", "A public checkpoint's name, a folder, or `tiny`."
)
_DEVICES = flags.DEFINE_integer("devices", 1, "How many.", lower_bound=1)
_TASKS = flags.DEFINE_integer(
  "tasks",
  None,
  "How many, if not those of the data or, without any, a batch's.",
  lower_bound=1,
)
_SECONDS = flags.DEFINE_float(
  "seconds",
  None,
  "Longest recording, if not the data's or, without any, the configuration's.",
  lower_bound=0.1,
)
_COMPILE = flags.DEFINE_bool(
  "compile", False, "Compile the step of one device, for its temporaries."
)
_TOPOLOGY = flags.DEFINE_string(
  "topology",
  "",
  "Compile the step for TPUs such as v5e:16x16 or v4:4x4x8, none of which has to "
  "be here; 2*v5e:16x16 is two slices.",
)
_SHOW_SHARDING = flags.DEFINE_bool(
  "show_sharding", False, "Also print where each parameter lies."
)
_JSON = flags.DEFINE_string("json", "", "Also write the figures to this file.")


def main(argv: Sequence[str]) -> None:
  """Prints the plan.

  Raises:
    InputError: flags, or a configuration that can't be planned.
  """
  del argv
  import jax

  if not _COMPILE.value or _TOPOLOGY.value:
    jax.config.update("jax_platforms", "cpu")  # a GPU may be another's
  from hra.planning import aot, outlines, page, plan, sharding_page, topology

  config = configs.from_flags()
  outline = outlines.of_config(config, name=_BACKBONE.value)
  chips = topology.described(_TOPOLOGY.value) if _TOPOLOGY.value else None
  devices = len(chips.devices) if chips else _DEVICES.value
  if _DEVICES.present and _DEVICES.value != devices:
    raise InputError(
      "--devices",
      expected=f"{devices}, the chips of {_TOPOLOGY.value}, or nothing",
      got=str(_DEVICES.value),
    )
  found = plan.plan(
    config,
    outline,
    devices=devices,
    tasks=_TASKS.value,
    seconds=_SECONDS.value,
    compiles=_COMPILE.value,
  )
  text = page.text(found, config, compiled=_COMPILE.value)
  sys.stdout.write(f"{text}\n")
  if _SHOW_SHARDING.value:
    sys.stdout.write(f"\n{sharding_page.text(found.leaves, found.mesh)}\n")
  figures = page.figures(found, config, compiled=_COMPILE.value)
  compiled = None
  if chips:
    sys.stdout.flush()
    compiled = aot.compile_step(
      config, outline, chips, tasks=_TASKS.value, seconds=_SECONDS.value
    )
    sys.stdout.write(f"\n{page.compiled_text(compiled, found)}\n")
    figures["compiled"] = page.compiled_figures(compiled)
  if _JSON.value:
    write_json(_JSON.value, figures)
  if compiled:
    aot.check_fits(compiled, config, outline)


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("plan")
