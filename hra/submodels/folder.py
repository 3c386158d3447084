"""The store of a folder, made where it isn't; one file by its path."""

from etils import epath

from hra.errors import InputError
from hra.files import is_remote, storage
from hra.submodels.file import WHAT, Submodel, Tree
from hra.submodels.index import Index
from hra.submodels.names import file_name
from hra.submodels.place import place_of
from hra.submodels.shared import Shared
from hra.submodels.shelf import VERSIONS, Loose
from hra.submodels.store import Store


def create(folder: epath.PathLike) -> Store:
  """The store in a folder, which is made if it isn't there.

  Raises:
    StorageError: it can't be made.
  """
  place = place_of(folder)
  if is_remote(folder):
    if not place.is_there():
      Index(place).begin()
  else:
    with storage(place.path, expected="a folder that can be made"):
      place.path.mkdir(parents=True, exist_ok=True)
  return Store(folder)


def save(folder: epath.PathLike, submodel: Submodel) -> epath.Path:
  """Publishes a Submodel in a folder's store, and says in which file.

  Raises:
    InputError, StorageError: as `Store.publish`.
  """
  create(folder).publish(submodel)
  return epath.Path(folder) / file_name(submodel.task)


def save_shared(folder: epath.PathLike, shared: Tree) -> str:
  """Writes shared parameters in a folder's store, and returns their hash."""
  place = place_of(create(folder).folder)
  with place.alone():
    return Shared(place).save(shared)


def load(path: epath.PathLike) -> Submodel:
  """Reads a Submodel's file and the shared parameters of its store.

  Raises:
    InputError: a file is missing or damaged, or is no Submodel.
  """
  path = epath.Path(path)
  folder = path.parent
  place = place_of(folder)
  try:
    found = Loose(place, path.name, "").content()
  except FileNotFoundError as error:
    raise InputError(path, expected=WHAT, got="no such file") from error
  if folder.parent.name == VERSIONS:
    place = place_of(folder.parent.parent)
  kind = found.told.kind
  return found.submodel(Shared(place).load(kind.shared_fingerprint))
