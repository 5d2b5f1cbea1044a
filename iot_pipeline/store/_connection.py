"""How to reach an S3 server: one client per process."""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from iot_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 4
CONNECT_SECONDS = 5
READ_SECONDS = 30


@dataclass(frozen=True, slots=True)
class S3Connection:
    """How to reach an S3 server; None means boto3's standard variables, profiles and files."""

    endpoint_url: str | None = None
    region_name: str | None = None
    profile_name: str | None = None
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)

    @property
    def client(self) -> "S3Client":
        """This process's client."""
        return self._open()[0]

    def object_store_options(self) -> dict[str, str]:
        """Return the same connection as ``deltalake`` storage options.

        Raises:
            NoCredentialsError: From boto3; ``deltalake`` would search the network for credentials instead.
        """
        from botocore.exceptions import NoCredentialsError  # noqa: PLC0415 - slow to import, as boto3 is

        client, session = self._open()
        names = "aws_access_key_id", "aws_secret_access_key", "aws_session_token"
        keys = [getattr(self, name) for name in names]
        if not self.aws_access_key_id:
            credentials = session.get_credentials()
            if not credentials:
                raise NoCredentialsError
            keys = credentials.get_frozen_credentials()[:3]
        endpoint = client.meta.endpoint_url
        options = {
            "aws_endpoint": endpoint,
            "aws_region": client.meta.region_name,
            "aws_virtual_hosted_style_request": "false",
            **dict(zip(names, keys, strict=True)),
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
    """Return this process's client and session; creating them takes longer than fetching a dozen objects."""
    import boto3  # noqa: PLC0415 - slow to import, and not needed for a directory
    from botocore.config import Config  # noqa: PLC0415

    session = boto3.session.Session(profile_name=connection.profile_name)
    config = Config(
        s3={"addressing_style": "path"},
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=32,
    )
    try:
        client = session.client(
            "s3",
            endpoint_url=connection.endpoint_url,
            region_name=connection.region_name or session.region_name or "us-east-1",
            aws_access_key_id=connection.aws_access_key_id,
            aws_secret_access_key=connection.aws_secret_access_key,
            aws_session_token=connection.aws_session_token,
            config=config,
        )
    except ValueError:  # its text repeats the URL, which may contain a password
        raise ConfigurationError("AWS_ENDPOINT_URL_S3 is not a URL") from None
    if "@" in urlsplit(client.meta.endpoint_url).netloc:
        raise ConfigurationError(
            "AWS_ENDPOINT_URL_S3 holds credentials: set AWS_ACCESS_KEY_ID and so on instead"
        )
    return client, session
