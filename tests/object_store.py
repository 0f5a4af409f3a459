"""An S3 of other people: moto's server in a process of its own, which refuses wrong credentials."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

REGION = "us-east-1"
_VERSION = "2012-10-17"
_NONE: Mapping[str, str] = {}


@dataclass
class ObjectStore:
    """A running store.

    Attributes:
        port: Where it listens on 127.0.0.1.
        key_id, secret: Credentials that may do everything with S3.
        log: What it wrote about its requests.
    """

    port: int
    log: Path
    key_id: str = ""
    secret: str = ""
    _names: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables with which a program reaches it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
        }

    def new_bucket(self) -> str:
        name = f"bucket-{next(self._names)}"
        self.open_request("PUT", f"/{name}")
        return name

    def new_user(self, actions: list[str]) -> dict[str, str]:
        """Credentials that may do some things: ``["s3:GetObject"]``."""
        user = f"user-{next(self._names)}"
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": _VERSION, "Statement": [statement]})
        self._iam("CreateUser", UserName=user)
        self._iam("PutUserPolicy", UserName=user, PolicyName="p", PolicyDocument=policy)
        text = self._iam("CreateAccessKey", UserName=user)
        key_id, secret = (
            re.search(f"<{name}>(.*?)</{name}>", text)[1]  # type: ignore[index]
            for name in ("AccessKeyId", "SecretAccessKey")
        )
        return {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}

    def put(self, bucket: str, key: str, content: bytes, headers: Mapping[str, str] = _NONE) -> None:
        """Puts an object there, as another program does."""
        self.open_request("PUT", f"/{bucket}/{quote(key)}", content, headers)

    def get(self, bucket: str, key: str) -> bytes:
        return self.open_request("GET", f"/{bucket}/{quote(key)}")

    def keys(self, bucket: str) -> list[str]:
        return re.findall("<Key>(.*?)</Key>", self.open_request("GET", f"/{bucket}?list-type=2").decode())

    def uploads(self, bucket: str) -> list[str]:
        """The uploads in parts that were begun, and neither completed nor aborted."""
        return re.findall(
            "<UploadId>(.*?)</UploadId>", self.open_request("GET", f"/{bucket}?uploads").decode()
        )

    def open_request(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] = _NONE,
    ) -> bytes:
        """A request that needs no credentials."""
        return self._unchecked(method, path, content, {**_BINARY, **headers})

    def _iam(self, action: str, **fields: str) -> str:
        form = urlencode({"Action": action, "Version": "2010-05-08", **fields}).encode()
        return self._unchecked("POST", "/", form, {"Authorization": _scope("iam")}).decode()

    def _unchecked(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> bytes:
        self._set_unchecked("inf")
        try:
            return self._send(method, path, content, headers)
        finally:
            self._set_unchecked("0")

    def _set_unchecked(self, requests: str) -> None:
        """Lets so many requests in before credentials are checked again."""
        self._send("POST", "/moto-api/reset-auth", requests.encode(), {"Content-Type": "text/plain"})

    def _send(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> bytes:
        request = urllib.request.Request(self.endpoint + path, content, dict(headers), method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            body: bytes = response.read()
        return body


def _scope(service: str) -> str:
    credential = f"AKIA/20260101/{REGION}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"


# Without a type urllib says that it sends a form.
_BINARY = {"Authorization": _scope("s3"), "Content-Type": "binary/octet-stream"}


@contextmanager
def running_store(folder: Path) -> Iterator[ObjectStore]:
    """Runs a store in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "moto.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "0"}
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process,
    ):
        try:
            store = ObjectStore(port, log)
            _wait_for(port, process)
            user = store.new_user(["s3:*"])
            store.key_id, store.secret = user["AWS_ACCESS_KEY_ID"], user["AWS_SECRET_ACCESS_KEY"]
            yield store
        finally:
            process.kill()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "the store ended"
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the store did not start within 30 seconds")
