"""An S3 server: one client per process, whole objects, and errors in one line.

What belongs here: how to reach a server and what its answers mean. What does not: what the objects are for.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from iot_pipeline.errors import ConfigurationError, IotPipelineError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 4
CONNECT_SECONDS = 5
READ_SECONDS = 30
_MD5 = re.compile(r"[0-9a-f]{32}")


class MissingObjectError(Exception):
    """There is no such object."""


class ChangedObjectError(Exception):
    """The object is another one than was expected."""


@dataclass(frozen=True, slots=True)
class S3Connection:
    """How to reach an S3 server; what is None comes from boto3's standard variables, profiles and files."""

    endpoint_url: str | None = None
    region_name: str | None = None
    profile_name: str | None = None
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)

    @property
    def client(self) -> "S3Client":
        """The process' client."""
        return self._open()[0]

    def object_store_options(self) -> dict[str, str]:
        """Return the same as options of the library that ``deltalake`` reaches S3 with."""
        client, session = self._open()
        credentials = session.get_credentials()
        keys = credentials.get_frozen_credentials() if credentials else None
        endpoint = client.meta.endpoint_url
        options = {
            "aws_endpoint": endpoint,
            "aws_region": client.meta.region_name,
            "aws_virtual_hosted_style_request": "false",
            "aws_access_key_id": self.aws_access_key_id or (keys.access_key if keys else None),
            "aws_secret_access_key": self.aws_secret_access_key or (keys.secret_key if keys else None),
            "aws_session_token": self.aws_session_token or (keys.token if keys else None),
            "aws_conditional_put": "etag",
            "allow_http": str(endpoint.startswith("http://")).lower(),
            "connect_timeout": f"{CONNECT_SECONDS}s",
            "timeout": f"{READ_SECONDS}s",
            "max_retries": str(ATTEMPTS),
            "retry_timeout": f"{ATTEMPTS * READ_SECONDS}s",
        }
        return {name: value for name, value in options.items() if value}

    def _open(self) -> tuple["S3Client", Any]:
        environment = tuple(item for item in os.environ.items() if item[0].startswith("AWS_"))
        return _open(self, environment, os.getpid())


@lru_cache(maxsize=4)
def _open(
    connection: S3Connection, _environment: tuple[tuple[str, str], ...], _process: int
) -> tuple["S3Client", Any]:
    """Return the process' client and session; making them takes longer than fetching a dozen objects."""
    import boto3  # noqa: PLC0415 - slow to import, and not needed for a directory
    from botocore.config import Config  # noqa: PLC0415

    session = boto3.session.Session(profile_name=connection.profile_name)
    client = session.client(
        "s3",
        endpoint_url=connection.endpoint_url,
        region_name=connection.region_name or session.region_name or "us-east-1",
        aws_access_key_id=connection.aws_access_key_id,
        aws_secret_access_key=connection.aws_secret_access_key,
        aws_session_token=connection.aws_session_token,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=32,
        ),
    )
    if "@" in urlsplit(client.meta.endpoint_url).netloc:
        raise ConfigurationError("AWS_ENDPOINT_URL_S3 holds credentials: set AWS_ACCESS_KEY_ID and so on")
    return client, session


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as the setting that names it means it.

    Attributes:
        name: The bucket's.
        setting: The environment variable that names it.
        fault: The error to raise when the server does not do as it is asked.
        connection: How to reach the server.
    """

    name: str
    setting: str
    fault: type[IotPipelineError]
    connection: S3Connection = S3Connection()

    @property
    def client(self) -> "S3Client":
        """The process' client."""
        return self.connection.client

    def fetch(
        self,
        key: str,
        to: IO[bytes],
        *,
        label: str = "",
        version: str | None = None,
        size: int | None = None,
    ) -> None:
        """Write an object to a file from its start, once its length and checksum are verified.

        Args:
            key: The object's.
            to: The file.
            label: How to call it in errors; by default its key.
            version: The ETag that it must have.
            size: The length that it must have.

        Raises:
            MissingObjectError: It is gone.
            ChangedObjectError: It has another ETag.
        """
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        label = label or key
        for _ in range(ATTEMPTS):
            to.seek(0)
            to.truncate()
            digest = hashlib.md5(usedforsecurity=False)
            try:
                with self.readable_errors(f"read {label}"):
                    condition = {"IfMatch": f'"{version}"'} if version else {}
                    answer = self.client.get_object(Bucket=self.name, Key=key, **condition)  # type: ignore[arg-type]
                for part in answer["Body"].iter_chunks(2**20):
                    digest.update(part)
                    to.write(part)
            except BotoCoreError as error:
                fault = one_line(error)
            else:
                etag = version or answer["ETag"].strip('"')
                expected = answer["ContentLength"] if size is None else size
                if to.tell() != expected:
                    fault = f"{to.tell()} bytes came instead of {expected}"
                elif _is_checksum(etag, answer) and digest.hexdigest() != etag:
                    fault = "its content does not match its checksum"
                else:
                    return
        raise self.fault(f"can't read {label}: after {ATTEMPTS} attempts {fault}")

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """Read the bytes of an object from start to before end."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        for _ in range(ATTEMPTS):
            try:
                with self.readable_errors(f"read {key}"):
                    answer = self.client.get_object(
                        Bucket=self.name, Key=key, Range=f"bytes={start}-{end - 1}"
                    )
                content = answer["Body"].read()
            except BotoCoreError as error:
                fault = one_line(error)
            else:
                if len(content) == end - start:
                    return content
                fault = f"{len(content)} bytes came instead of {end - start}"
        raise self.fault(f"can't read {key}: after {ATTEMPTS} attempts {fault}")

    @contextmanager
    def readable_errors(self, what: str) -> Iterator[None]:
        """Turn boto3's errors into one line that says what to do and holds no secret."""
        from botocore.exceptions import (  # noqa: PLC0415
            BotoCoreError,
            ClientError,
            ConnectionError,  # noqa: A004 - not Python's
            HTTPClientError,
            NoCredentialsError,
        )

        advice = {
            "NoSuchBucket": f"there is no such bucket: check {self.setting}",
            "InvalidAccessKeyId": "unknown access key: check AWS_ACCESS_KEY_ID",
            "SignatureDoesNotMatch": "wrong secret: check AWS_SECRET_ACCESS_KEY",
            "AccessDenied": "access denied: check the credentials and their rights",
            "403": "access denied: check the credentials and their rights",
        }
        try:
            yield
        except NoCredentialsError as error:
            raise ConfigurationError(
                f"can't {what}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile)"
            ) from error
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown error")
            if code in {"NoSuchKey", "404"}:
                raise MissingObjectError(what) from error
            if code in {"PreconditionFailed", "412"}:
                raise ChangedObjectError(what) from error
            if code in advice:
                raise ConfigurationError(f"can't {what}: {advice[code]}") from error
            if code.isdigit():  # the answer is none of an S3 server
                code = f"answer {code} (check AWS_ENDPOINT_URL_S3)"
            raise self.fault(f"can't {what}: {code}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise self.fault(f"can't {what}: {one_line(error)} (check AWS_ENDPOINT_URL_S3)") from error
        except BotoCoreError as error:  # a bucket, a URL or a profile that there can't be
            raise ConfigurationError(
                f"can't {what}: {one_line(error)} (check {self.setting}, AWS_ENDPOINT_URL_S3 and AWS_PROFILE)"
            ) from error
        except ValueError:  # it repeats the URL, which may hold a password
            raise ConfigurationError(f"can't {what}: AWS_ENDPOINT_URL_S3 is not a URL") from None


def _is_checksum(etag: str, answer: Any) -> bool:
    """Tell whether an ETag is the MD5 of the content; it looks like one also where the server encrypts."""
    encryption = str(answer.get("ServerSideEncryption", ""))
    is_encrypted = encryption.startswith("aws:") or "SSECustomerAlgorithm" in answer
    return bool(_MD5.fullmatch(etag)) and not is_encrypted


def one_line(error: Exception) -> str:
    """Return an error's text in one line."""
    return " ".join(str(error).split())
