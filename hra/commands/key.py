"""Keys of a server: who may ask it, and for whose Submodels.

    hra key --action=add --keys=keys.json --name=annas-phone --speakers=anna
    hra key --action=add --keys=keys.json --name=clinic --every_speaker
    hra key --action=add --keys=keys.json --name=ops --admin
    hra key --action=list --keys=keys.json
    hra key --action=revoke --keys=keys.json --name=annas-phone

A new key's token is printed once, alone on the standard output; the file keeps a hash
of it. A client sends it as "Authorization: Bearer TOKEN", which is what the openai client
does with its api_key. Servers that run follow the file: hra serve --keys=keys.json.
"""

import sys
from collections.abc import Sequence

from absl import flags

from hra.commands import configs
from hra.errors import InputError
from hra.serve import keys

_ACTION = flags.DEFINE_enum(
  "action", "list", ["add", "list", "revoke"], "What to do."
)
_KEYS = flags.DEFINE_string("keys", "", "The file of keys.")
_NAME = flags.DEFINE_string("name", "", "What a key is called, in logs too.")
_SPEAKERS = flags.DEFINE_list(
  "speakers", [], "Whose Submodels a new key may use: anna,bert."
)
_EVERY = flags.DEFINE_bool(
  "every_speaker", False, "Let a new key use everybody's Submodels."
)
_ADMIN = flags.DEFINE_bool(
  "admin", False, "Let a new key load and unload Submodels, and list them."
)


def main(argv: Sequence[str]) -> None:
  """Adds, lists or revokes.

  Raises:
    InputError: flags that don't fit, a name that is taken or unknown.
    StorageError: the file can't be read or written.
  """
  del argv
  path = configs.required(_KEYS, "keys.json")
  match _ACTION.value:
    case "add":
      _add(path)
    case "list":
      for entry in keys.entries(path):
        print(_line(entry))
    case "revoke":
      name = configs.required(_NAME, "annas-phone")
      keys.revoke(path, name)
      print(f"{path}: key {name!r} is revoked", file=sys.stderr)


def _add(path: str) -> None:
  name = configs.required(_NAME, "annas-phone")
  if bool(_SPEAKERS.value) + _EVERY.value + _ADMIN.value == 0:
    raise InputError(
      "hra key",
      expected="what the key is for",
      got="nothing",
      fix="--speakers=anna,bert, --every_speaker or --admin",
    )
  if _SPEAKERS.value and _EVERY.value:
    raise InputError(
      "hra key",
      expected="--speakers or --every_speaker",
      got="both",
    )
  speakers = None if _EVERY.value else _SPEAKERS.value
  token = keys.add(path, name, speakers=speakers, admin=_ADMIN.value)
  print(f"{path}: key {name!r} is added; its token, once:", file=sys.stderr)
  print(token)


def _line(entry: keys.Entry) -> str:
  """Name, day, and what it is for, with tabs between them."""
  name, speakers, admin = entry.key
  may = ["admin"] if admin else []
  if speakers is None:
    may.append("every speaker")
  elif speakers:
    may.append(", ".join(sorted(speakers)))
  return "\t".join((name, entry.made, "; ".join(may)))


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("key")
