"""Archives: unpacked once, safely; and what is said of damaged ones."""

import gzip
import io
import tarfile

import corpus_forms
import pytest
from etils import epath

from hra.data.corpora import archives
from hra.data.records import Problems
from hra.errors import InputError, StorageError


def _unpack(archive, into):
  problems = Problems(archive, expected="an archive without faults")
  folder = archives.unpack(epath.Path(archive), into=into, problems=problems)
  return folder, [str(problem) for problem in problems]


def _files(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file() and path.name != "unpacked.json"
  }


@pytest.fixture
def into(tmp_path):
  return tmp_path / "scratch"


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "A.TAR"])
def test_transcripts_and_recordings_are_unpacked(tmp_path, into, name):
  layout = corpus_forms.layout()
  other = {"LibriSpeech/README.TXT": b"x", "train/1/2/._1-2-3.flac": b"x"}
  archive = corpus_forms.archive(tmp_path / name, layout | other)
  folder, problems = _unpack(archive, into)
  assert problems == []
  assert folder.parent == into
  assert _files(folder) == layout


def test_a_gz_suffix_without_gzip(tmp_path, into):
  archive = corpus_forms.archive(tmp_path / "a.tar", corpus_forms.layout())
  archive = archive.rename(tmp_path / "a.tar.gz")
  assert _files(_unpack(archive, into)[0]) == corpus_forms.layout()


def test_archives_of_one_name_are_kept_apart(tmp_path, into):
  folders = []
  for place in ("one", "two"):
    (tmp_path / place).mkdir()
    archive = tmp_path / place / "a.tar"
    corpus_forms.archive(archive, {f"{place}/1/2/1-2-3.flac": b"x"})
    folders.append(_unpack(archive, into)[0])
  for place, folder in zip(("one", "two"), folders, strict=True):
    assert list(_files(folder)) == [f"{place}/1/2/1-2-3.flac"]


def test_a_second_attempt_unpacks_nothing(tmp_path, into, monkeypatch):
  archive = corpus_forms.archive(tmp_path / "a.tar", {"/a/1.flac": b"x"})
  folder, problems = _unpack(archive, into)
  monkeypatch.setattr(archives, "_extract", None)
  again, same = _unpack(archive, into)
  assert again == folder
  assert problems == same
  assert len(problems) == 1


def test_another_archive_of_the_same_name_is_unpacked(tmp_path, into):
  archive = corpus_forms.archive(tmp_path / "a.tar", {"a/1.flac": b"one"})
  _unpack(archive, into)
  corpus_forms.archive(tmp_path / "a.tar", {"a/2.flac": b"2" * 20_000})
  folder, _ = _unpack(archive, into)
  assert list(_files(folder)) == ["a/2.flac"]


def test_an_attempt_that_was_killed_is_done_again(tmp_path, into):
  layout = corpus_forms.layout()
  archive = corpus_forms.archive(tmp_path / "a.tar.gz", layout)
  folder, _ = _unpack(archive, into)
  (folder / "unpacked.json").unlink()
  (folder / "stale.flac").write_bytes(b"x")
  folder.rename(into / f".{folder.name}")
  assert _unpack(archive, into)[0] == folder
  assert _files(folder) == layout
  assert list(into.iterdir()) == [folder]


def test_an_interrupted_attempt_leaves_nothing(tmp_path, into, monkeypatch):
  archive = corpus_forms.archive(tmp_path / "a.tar.gz", corpus_forms.layout())
  place, count = archives._place, 0

  def interrupted(*args, **options):
    nonlocal count
    count += 1
    if count > 5:
      raise KeyboardInterrupt
    place(*args, **options)

  monkeypatch.setattr(archives, "_place", interrupted)
  with pytest.raises(KeyboardInterrupt):
    _unpack(archive, into)
  assert list(into.iterdir()) == []


def _member(name, **attributes):
  member = tarfile.TarInfo(name)
  for key, value in attributes.items():
    setattr(member, key, value)
  return member


@pytest.mark.parametrize(
  ("member", "expected"),
  [
    (_member("/etc/x.flac"), "expected a path inside of the archive"),
    (_member("../x.flac"), "expected a path inside of the archive"),
    (_member("a/../../x.trans.txt"), "expected a path inside of the archive"),
    (_member("a/../x.flac"), "expected a path inside of the archive"),
    (_member("a\n/x.flac"), "expected a path inside of the archive"),
    (
      _member("a/x.flac", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
      "expected a file or a folder, got a link or a device",
    ),
    (
      _member("a", type=tarfile.SYMTYPE, linkname=".."),
      "expected a file or a folder, got a link or a device",
    ),
    (
      _member("a/x.flac", type=tarfile.LNKTYPE, linkname="b/1.flac"),
      "expected a file or a folder, got a link or a device",
    ),
    (
      _member("a/x.flac", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
      "expected a file or a folder, got a link or a device",
    ),
    (
      _member("a/x.flac", type=tarfile.FIFOTYPE),
      "expected a file or a folder, got a link or a device",
    ),
  ],
)
def test_hostile_members_are_problems(tmp_path, into, member, expected):
  archive = tmp_path / "a.tar"
  with tarfile.open(archive, "w") as tar:
    tar.addfile(member)
    good = _member("b/1.flac", size=4, mode=0o4777)
    tar.addfile(good, io.BytesIO(b"good"))
  before = {path for path in tmp_path.rglob("*") if path != archive}
  folder, (problem,) = _unpack(archive, into)
  assert problem.startswith(f"{archive}/")
  assert expected in problem
  assert "\n" not in problem
  assert _files(folder) == {"b/1.flac": b"good"}
  assert not (folder / "b/1.flac").stat().st_mode & 0o7111
  outside = {path for path in tmp_path.rglob("*") if into not in path.parents}
  assert outside - before == {archive, into}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_truncated_and_damaged_archives(tmp_path, into, suffix):
  archive = tmp_path / f"a{suffix}"
  data = corpus_forms.archive(archive, corpus_forms.layout()).read_bytes()
  ends = [0, 1, 100, 512, 1024, 1536, len(data) // 2, len(data) * 3 // 4]
  if suffix == ".tar.gz":
    ends += [len(data) - 9, len(data) - 4, len(data) - 1]
  cases = [data[:end] for end in ends]
  flipped = bytearray(data)
  # In a header of the plain archive, in the data of the other.
  flipped[len(data) // 2 // 512 * 512 + 150] ^= 0x10
  if suffix == ".tar.gz":
    cases.append(bytes(flipped))
  cases += [b"no archive at all" * 100, b"\0" * 100]
  for case in cases:
    archive.write_bytes(case)
    with pytest.raises(InputError) as caught:
      _unpack(archive, into)
    message = str(caught.value)
    assert message.startswith(
      f"{archive}: expected a whole .tar or .tar.gz archive, got "
    )
    assert "\n" not in message
    assert list(into.iterdir()) == []


@pytest.mark.parametrize(
  ("name", "data", "got"),
  [
    ("a.tar", b"", "an empty file"),
    ("a.tar.gz", b"", "an empty file"),
    ("a.tar.gz", b"<html>" * 200, "neither gzip nor a whole .tar ("),
    ("a.TGZ", b"<html>" * 200, "neither gzip nor a whole .tar ("),
    ("a.tar", b"<html>" * 200, "a truncated or damaged one ("),
  ],
)
def test_what_is_no_archive(tmp_path, into, name, data, got):
  archive = tmp_path / name
  archive.write_bytes(data)
  with pytest.raises(InputError) as caught:
    _unpack(archive, into)
  assert caught.value.got.startswith(got)


def test_a_damaged_header_is_not_the_end(tmp_path, into):
  archive = tmp_path / "a.tar"
  data = corpus_forms.archive(archive, {"a.flac": b"1", "b.flac": b"2"})
  damaged = bytearray(data.read_bytes())
  damaged[1024 + 3] ^= 1  # in the second header
  archive.write_bytes(damaged)
  with pytest.raises(InputError, match="a damaged header"):
    _unpack(archive, into)


def test_the_checksum_of_gzip_is_read(tmp_path, into):
  archive = tmp_path / "a.tar.gz"
  plain = corpus_forms.archive(tmp_path / "a.tar", corpus_forms.layout())
  data = bytearray(gzip.compress(plain.read_bytes()))
  data[-6] ^= 1
  archive.write_bytes(data)
  with pytest.raises(InputError, match="CRC check failed"):
    _unpack(archive, into)


def test_what_the_disk_refuses(tmp_path, into):
  with pytest.raises(StorageError, match="no such file"):
    _unpack(tmp_path / "absent.tar", into)
  archive = corpus_forms.archive(tmp_path / "a.tar", corpus_forms.layout())
  into.write_text("not a folder")
  with pytest.raises(StorageError, match=r"room for what the archive holds"):
    _unpack(archive, into)
