"""One resident backbone that answers everybody, each by a Submodel of their own.

    hra serve --workdir=runs/quickstart
    hra serve --backbone=backbones/whisper --store=submodels --language=de
    hra serve --workdir=runs/mine --keys=keys.json --hosts=asr.example.org

It speaks as OpenAI's transcriptions do: http://127.0.0.1:8000/v1 is the base URL of
their client, and BACKBONE:SPEAKER a model. There is also a page at /, a stream of
samples at /v1/audio/stream, /health/live, /health/ready and /metrics.

Without --keys anybody on this machine may ask for everybody's Submodel, and nobody on
another one: --keys is a file of hra key, --open lets all come. It speaks plain HTTP;
what stands before it on a network has to speak TLS: a proxy on this machine, whose name
--hosts says, or on another one (--host=0.0.0.0).

Slots, lengths, batches and limits are fields of a configuration, such as
--config.engine.slots=256, --config.engine.bucket_seconds=5,10,30,
--config.limits.max_seconds=600 or --config.limits.requests_per_minute=60. Each length
and size of a batch is compiled before the first request, and kept for the next time.

stderr has a line of JSON for each request, without audio and texts. SIGTERM and Ctrl-C
let requests that run end.
"""

import shlex
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args, get_type_hints

from absl import flags
from etils import epath

from hra import config_tree
from hra.commands import configs, process, searching
from hra.config import ChunksConfig, HttpConfig, SearchConfig, ServeConfig
from hra.errors import InputError

if TYPE_CHECKING:
  from hra.backbone.store import StoredBackbone
  from hra.serve.http.service import Service
  from hra.submodels import Store

_HTTP = HttpConfig()

flags.adopt_module_key_flags(searching)
_WORKDIR = flags.DEFINE_string(
  "workdir", "", "A trained run's folder: its backbone and its Submodels."
)
_BACKBONE = flags.DEFINE_string(
  "backbone", "", "A backbone's folder, or tiny; with --workdir, the run's own."
)
_STORE = flags.DEFINE_string(
  "store", "", "A folder of Submodels; with --workdir, the run's own."
)
_NAME = flags.DEFINE_string(
  "name",
  "",
  "What clients call the backbone; by default as its folder or its run.",
)
_HOST = flags.DEFINE_string(
  "host", _HTTP.host, "The address to listen at; 0.0.0.0 is all of IPv4."
)
_PORT = flags.DEFINE_integer(
  "port", _HTTP.port, "The port; 0 is any that is free."
)
_HOSTS = flags.DEFINE_list(
  "hosts",
  None,
  "Names that it is asked by on top of this machine's, such as that of a proxy.",
)
_KEYS = flags.DEFINE_string(
  "keys", "", "A file of hra key: who may ask, and for whom."
)
_OPEN = flags.DEFINE_bool(
  "open", False, "Listen to other machines without keys."
)
_LANGUAGE = flags.DEFINE_string(
  "language",
  "",
  "What is spoken, such as de: Whisper is asked for it, and clients are told; "
  "requests in another are refused.",
)
_TIMESTAMPS = flags.DEFINE_bool(
  "timestamps", None, "Have Whisper say when each segment was said."
)
_LOG_SPEAKERS = flags.DEFINE_enum(
  "log_speakers",
  _HTTP.log_speakers,
  list(get_args(get_type_hints(HttpConfig)["log_speakers"])),
  "What the log calls speakers: a hash of their names, or those.",
)
configs.define_settings()


class _Parts(NamedTuple):
  """What the flags name."""

  stored: "StoredBackbone"
  folder: epath.Path
  """Of the backbone."""
  store: epath.Path
  name: str
  language: str
  """Empty where nobody says."""


def main(argv: Sequence[str]) -> None:
  """Serves until it is asked to stop.

  Raises:
    InputError: nothing is there by these names, what can't be used together, or an
      address that can't be had.
  """
  del argv
  start = time.monotonic()
  config = _config()
  _check_open(config.http)
  process.set_up()
  from hra.serve.http import app, server

  bound = server.bind(config.http)  # before minutes of compiling
  parts = _parts()
  store, tasks = _opened(parts)
  service = _service(parts, store, config)

  address = server.address_of(bound)

  def ready() -> None:
    seconds = time.monotonic() - start
    print(_told(parts, tasks, address, seconds), flush=True)

  print(
    f"hra serve: {address}; requests wait until all is compiled", flush=True
  )

  ended = server.run(
    app.build(service, hosts=server.hosts_of(config.http)),
    bound,
    service,
    on_ready=ready,
  )
  print(f"hra serve: stopped, {ended.told()}", file=sys.stderr)


def _config() -> ServeConfig:
  """The flags as a configuration.

  Raises:
    InputError: a field or a value that there isn't.
  """
  config = ServeConfig()
  for assignment in configs.settings():
    config_tree.override(config, assignment)
  given = {"host": _HOST, "port": _PORT, "log_speakers": _LOG_SPEAKERS}
  for field, flag in given.items():
    if flag.present:
      setattr(config.http, field, flag.value)
  if _HOSTS.present:
    config.http.hosts = tuple(_HOSTS.value or ())
  config_tree.validate(config)
  return config


def _check_open(http: HttpConfig) -> None:
  from hra.serve.http.server import is_local

  if _KEYS.value or _OPEN.value:
    return
  hosts = ",".join(http.hosts)
  if hosts or not is_local(http.host):
    raise InputError(
      f"--hosts={hosts}" if hosts else f"--host={http.host}",
      expected="--keys, as other machines can connect",
      got="none",
      fix="make a file by hra key --action=add, or let everybody in by --open",
    )


def _parts() -> _Parts:
  """The backbone and its Submodels.

  Raises:
    InputError: nothing is there by these names.
  """
  from hra import run
  from hra.backbone import store
  from hra.backbone.prompted import Asked

  workdir = epath.Path(_WORKDIR.value) if _WORKDIR.value else None
  if workdir is None and not _STORE.value:
    raise InputError(
      "hra serve",
      expected="--workdir of a run, or --store with --backbone",
      got="neither",
      fix="hra serve --workdir=runs/quickstart",
    )
  folder = store.folder_of(_BACKBONE.value or "tiny")
  asked, of_store = Asked(), epath.Path(_STORE.value)
  if workdir is not None:
    asked = run.asked_of(workdir)
    if not _BACKBONE.value:
      folder = run.backbone_of(workdir)
    if not _STORE.value:
      of_store = workdir / "submodels"
  if _TIMESTAMPS.value is not None:
    asked = asked._replace(timestamps=_TIMESTAMPS.value)
  stored = store.load(folder)
  if stored.config.decoder.language and _LANGUAGE.value:
    asked = asked._replace(language=_LANGUAGE.value)
  stored = store.asked(stored, asked)
  return _Parts(
    stored,
    folder,
    of_store,
    _name(folder),
    stored.config.decoder.language or _LANGUAGE.value,
  )


def _name(folder: epath.Path) -> str:
  """What clients call a backbone.

  Raises:
    InputError: a name that clients couldn't tell from a speaker's.
  """
  place = folder.parent if folder.name == "backbone" else folder
  name = _NAME.value or place.resolve().name
  if ":" in name or not name.isprintable() or not name.strip():
    raise InputError(
      "--name",
      expected="a name without a colon, which stands before speakers",
      got=repr(name),
      fix="such as --name=tiny",
    )
  return name


def _service(parts: _Parts, store: "Store", config: ServeConfig) -> "Service":
  """Loads, compiles, and starts the processes that decode.

  Raises:
    InputError: a backbone or keys that can't be used.
  """
  from hra.evaluate.search import open_search
  from hra.serve.decoding import Decoders
  from hra.serve.engine import Engine
  from hra.serve.http.bounds import RateLimiter
  from hra.serve.http.logs import Log
  from hra.serve.http.service import About, Service
  from hra.serve.keys import Keys

  keys = Keys.open(_KEYS.value) if _KEYS.value else None
  search = open_search(
    searching.given(SearchConfig()),
    parts.stored.tokenizer,
    decoder=parts.stored.config.decoder.kind,
  )
  engine = Engine(
    parts.stored,
    store,
    config.engine,
    search=search,
    chunks=ChunksConfig(),
  )
  return Service(
    engine=engine,
    keys=keys,
    decoders=Decoders(config.limits),
    limiter=RateLimiter(config.limits),
    about=About(parts.name, parts.language, int(time.time())),
    config=config,
    log=Log(named=config.http.log_speakers == "named"),
  )


def _opened(parts: _Parts) -> tuple["Store", list[str]]:
  """The store, and whose Submodels are in it.

  Tells of files that nobody can be answered by, but not of whom.

  Raises:
    InputError: a store that can't be used.
  """
  from hra.submodels import Store

  store = Store(parts.store)
  entries, refused = store.listing()
  own = parts.stored.fingerprint
  others = [each for each in entries if each.backbone_fingerprint != own]
  for count, told in (
    (len(refused), "no whole Submodels; hra store names them"),
    (len(others), f"of other backbones than {parts.name} ({own})"),
  ):
    if count:
      print(f"hra serve: {parts.store}: {count:,} are {told}", file=sys.stderr)
  return store, [each.task for each in entries]


def _told(
  parts: _Parts, tasks: Sequence[str], address: str, seconds: float
) -> str:
  """What is served where, and how to try it."""
  model = f"{parts.name}:{tasks[0]}" if tasks else parts.name
  if _KEYS.value:
    who, key = (
      f"who has a key of {_KEYS.value}",
      ' -H "Authorization: Bearer $KEY"',
    )
  elif _OPEN.value:
    who, key = "everybody who can connect", ""
  else:
    who, key = "everybody on this machine, and nobody else", ""
  return f"""\
hra serve: ready after {seconds:.0f} s at {address}
  backbone    {parts.name} ({parts.folder})
  Submodels   {len(tasks):,} ({parts.store})
  answers     {who}

  the page    {address}/
  try it      curl {address}/v1/audio/transcriptions{key} \\
                -F model={shlex.quote(model)} -F file=@recording.wav
  OpenAI's    OpenAI(base_url="{address}/v1", api_key=...)"""


if __name__ == "__main__":
  from hra.commands import main as cli

  cli.run_verb("serve")
