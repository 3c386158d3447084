"""A bucket of S3, served by this process."""

import pytest
from etils import epath


@pytest.fixture(scope="session")
def s3_server():
  """The server, and the environment that points to it."""
  import s3fs
  from moto.server import ThreadedMotoServer

  server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem(anon=False).mkdir("speech")
    yield
  s3fs.S3FileSystem.clear_instance_cache()
  server.stop()


@pytest.fixture
def bucket(s3_server, tmp_path, monkeypatch):
  """A fresh folder of a bucket, and a fresh cache."""
  monkeypatch.setenv("HRA_CACHE", str(tmp_path / "cache"))
  return epath.Path(f"s3://speech/{tmp_path.name}")
