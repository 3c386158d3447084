"""A public checkpoint -> a backbone that Submodels are trained on.

    hra convert --source=parakeet-ctc-0.6b --out=backbones/parakeet

--source is a local folder as Hugging Face's transformers saves it, with its
config.json, safetensors, preprocessor_config.json and tokenizer, of one of

    LasrForCTC            MedASR and others of its kind
    ParakeetForCTC        Parakeet with CTC
    ParakeetForRNNT       with a transducer
    ParakeetForTDT        with one that says how many frames each label lasts
    Wav2Vec2BertForCTC    w2v-BERT 2.0, fine-tuned with CTC
    WhisperForConditionalGeneration
                          Whisper, all sizes; --language is what it is asked for where
                          a run doesn't say another (config.backbone.decoder.language)

What is made hears as the original does, without dropout. Memory holds one tensor at
a time. Pickles (pytorch_model.bin) are never opened. Reading tokenizer.json takes
the extra `convert`: pip install 'hra[convert]'.
"""

import sys
from collections.abc import Sequence

from absl import flags
from tqdm import tqdm

from hra.commands import configs

_SOURCE = flags.DEFINE_string("source", "", "The checkpoint's folder.")
_OUT = flags.DEFINE_string("out", "", "The backbone's folder, a new one.")
_PARAM_DTYPE = flags.DEFINE_enum(
  "param_dtype",
  "float32",
  ["float32", "bfloat16"],
  "Type of the parameters that are written, whatever the checkpoint has.",
)
_LANGUAGE = flags.DEFINE_string(
  "language", "", "What is spoken, such as de; empty is English (Whisper)."
)


def main(argv: Sequence[str]) -> None:
  """Converts what the flags name and says what it made.

  Raises:
    InputError: flags, or a checkpoint that can't be converted.
  """
  del argv
  source = configs.required(_SOURCE, "parakeet-ctc-0.6b")
  out = configs.required(_OUT, "backbones/parakeet")
  from hra.backbone.foreign.convert import convert

  with tqdm(desc="converting", unit="", unit_scale=True) as bar:

    def show(done: int, total: int) -> None:
      bar.total = total
      bar.update(done - bar.n)

    made = convert(
      source,
      out,
      param_dtype=_PARAM_DTYPE.value,
      language=_LANGUAGE.value,
      progress=show,
    )
  config = made.config
  lines = [
    f"{made.architecture}: {made.parameters / 1e6:,.1f}M parameters "
    f"({config.param_dtype}), {config.layers} layers of {config.width}, "
    f"{config.vocabulary} labels",
    made.labels,
    f"converted: {out}, fingerprint {made.fingerprint}",
    "",
    f"hra transcribe --backbone={out} FILE...",
    "hra train --config=experiments/adapt.py --workdir=runs/mine "
    f"--config.data.path=data/mine --config.backbone_path={out}",
    "",
  ]
  sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("convert")
