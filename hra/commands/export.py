"""A Submodel in another form: a LoRA folder that PEFT loads, or a Submodel's file.

    hra export --workdir=runs/mine --task=anna --out=peft/anna
    hra export --backbone=backbones/parakeet --submodel=peft/anna \\
      --format=submodel --out=store

PEFT loads LoRA alone, of backbones that `hra convert` made; what it loads hears as
the Submodel does. What came from PEFT goes back as it was, byte for byte. Where all
Submodels of a run stand, `hra train` says: they need no export.
"""

from collections.abc import Sequence

from absl import flags
from etils import epath

from hra.commands import choosing, configs, process
from hra.errors import InputError

flags.adopt_module_key_flags(choosing)
_FORMAT = flags.DEFINE_enum(
  "format",
  "peft",
  ["peft", "submodel"],
  "peft: --out is a new folder with adapter_config.json; submodel: --out is a "
  "folder of Submodels, which gets one more file.",
)
_OUT = flags.DEFINE_string("out", "", "The folder to write to.")


def main(argv: Sequence[str]) -> None:
  """Writes what the flags name.

  Raises:
    InputError: flags, a Submodel that can't be read, or one that has no such form.
  """
  del argv
  out = epath.Path(configs.required(_OUT, "peft/anna"))
  process.set_up()
  from hra import submodels
  from hra.peft import folder

  recognizer, submodel = choosing.load()
  if submodel is None:
    raise InputError(
      "--task",
      expected="whose Submodel of --workdir it is, or --submodel=PATH",
      got="nothing",
    )
  if _FORMAT.value == "peft":
    print(f"wrote {folder.write(out, submodel, recognizer.stored)}")
    return
  path = out / submodels.file_name(submodel.task)
  if path.exists():
    raise InputError(
      path,
      expected="no Submodel of that name",
      got="one",
      fix="name another --out or --task",
    )
  submodels.save_shared(out, submodel.shared)
  print(f"wrote {submodels.save(out, submodel)}")


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("export")
