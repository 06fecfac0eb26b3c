"""A stand-in for S3 on this machine: one moto server process a test session; a fresh bucket a test.

GCS's XML API is close enough to S3's that the same server answers Google's driver too (with a token that looks like a
signature); Google's JSON API is not there, see tests/support/gcs.py.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from typing import Any
from uuid import uuid4

import boto3

REGION = "us-east-1"
TOKEN = "Credential=x/20260101/us-east-1/s3/aws4_request"


class Moto:
    """One running server. `url` is its address."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                    return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.1)

    def client(self, region: str = REGION) -> Any:
        """Amazon's own client, to set a bucket up with."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id="access",
            aws_secret_access_key="secret",
        )

    def bucket(self, region: str = REGION) -> str:
        """The name of a new bucket."""
        name = f"kept{uuid4().hex[:16]}"  # no hyphen: Google's driver escapes it and moto does not read that
        place = {} if region == REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self.client(region).create_bucket(Bucket=name, **place)
        return name

    def s3_environment(self) -> dict[str, str]:
        """What points our S3 driver here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "access",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
        }

    def gs_environment(self) -> dict[str, str]:
        """What points our GCS driver here."""
        return {"STORAGE_EMULATOR_HOST": self.url, "GOOGLE_OAUTH_ACCESS_TOKEN": TOKEN}

    def stop(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait(10)
