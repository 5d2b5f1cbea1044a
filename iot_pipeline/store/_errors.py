"""A store's errors as its user reads them: one line that says what to check and reveals no secret.

Two libraries talk to S3, boto3 and the one inside ``deltalake``; both pass on S3's error codes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from textwrap import shorten

from iot_pipeline.errors import (
    ConfigurationError,
    IotPipelineError,
    SourceError,
    WarehouseError,
    WarehouseUnreachableError,
)
from iot_pipeline.store._interface import ObjectChangedError

_REFUSED = {
    "NoSuchBucket": "there is no such bucket: check {setting}",
    "InvalidAccessKeyId": "unknown access key: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "wrong secret: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired: renew AWS_SESSION_TOKEN and its keys",
    "AccessDenied": "access denied: check the credentials and their rights",
    "403": "access denied: check the credentials and their rights",
    "PermanentRedirect": "the bucket is in another region: check AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: check AWS_REGION",
}
"""The meaning of the S3 error codes that a retry does not change."""
_RAISED_WHILE_READING: dict[str, type[IotPipelineError]] = {
    "ConfigurationError": ConfigurationError,
    "FileNotFoundError": WarehouseError,
    "WarehouseUnreachableError": WarehouseUnreachableError,
}
_MARKS = re.compile(r"\x1b\[[0-9;]*m|↳")
"""The colours and arrows with which ``deltalake`` prints the causes of an error."""
_FRAME = re.compile(r"\s*\d+: ")
LONGEST_REASON = 200


def one_line(error: Exception) -> str:
    """Return an error's text as one line, without the stack trace that ``deltalake`` appends."""
    lines = takewhile(lambda line: not _FRAME.match(line), _MARKS.sub("", str(error)).splitlines())
    causes = [line.strip() for line in lines if line.strip()]
    return shorten(": ".join(causes) or type(error).__name__, LONGEST_REASON, placeholder=" …")


def unreachable(setting: str) -> type[IotPipelineError]:
    """Return the error class for a store that does not answer as it should."""
    return SourceError if setting == "IOT_SOURCE" else WarehouseUnreachableError


def table_error(what: str, error: Exception, setting: str = "IOT_WAREHOUSE") -> IotPipelineError:
    """Translate an error of ``deltalake`` into one of ours.

    Args:
        what: What failed, like ``write s3://bucket/timeseries``.
        error: The error that ``deltalake`` raised.
        setting: The environment variable that names the store.

    Returns:
        A ``WarehouseUnreachableError``, which may pass, or a ``ConfigurationError`` if S3 is the cause, else
        a ``WarehouseError``.
    """
    text = _MARKS.sub("", str(error)).strip()
    if "S3 error" not in text:
        return WarehouseError(f"can't {what}: {one_line(error)}")
    code = re.search(r"<Code>(\w+)</Code>", text)
    last_line = text.splitlines()[-1].strip()
    return _s3_error(what, code[1] if code else last_line.rpartition(": ")[2], setting)


def query_error(what: str, error: Exception) -> IotPipelineError:
    """Translate an error of DuckDB into one of ours.

    DuckDB reports an error raised while it reads from S3 as a traceback with the error in its last line.

    Args:
        what: What failed, like ``read s3://bucket``.
        error: The error that DuckDB raised.
    """
    text = str(error)
    for name, reason in reversed(re.findall(r"^(?:[\w.]+\.)?(\w+): (.*)$", text, re.MULTILINE)):
        if name in _RAISED_WHILE_READING:
            return _RAISED_WHILE_READING[name](reason)
    return WarehouseError(f"can't {what}: {text.splitlines()[0]}")


def _s3_error(what: str, answer: str, setting: str) -> IotPipelineError:
    if answer in _REFUSED:
        return ConfigurationError(f"can't {what}: {_REFUSED[answer].format(setting=setting)}")
    if re.fullmatch(r"\w+", answer):
        answer = f"the server answers {answer}"
    return unreachable(setting)(f"can't {what}: {answer} (check AWS_ENDPOINT_URL_S3)")


@contextmanager
def readable_errors(what: str, setting: str) -> Iterator[None]:
    """Translate boto3's errors into ours.

    Args:
        what: What the block does, like ``list s3://bucket``.
        setting: The environment variable that names the store.

    Raises:
        FileNotFoundError: There is no such object.
        ObjectChangedError: A condition of the request does not hold.
        ConfigurationError: The server refuses the request, or a setting is invalid.
        SourceError: The source's server does not answer as it should.
        WarehouseUnreachableError: The warehouse's server does not.
    """
    from botocore.exceptions import (  # noqa: PLC0415 - slow to import, and not needed for a directory
        BotoCoreError,
        ClientError,
        ConnectionError,  # noqa: A004 - not the built-in one
        HTTPClientError,
        NoCredentialsError,
    )

    try:
        yield
    except NoCredentialsError as error:
        raise ConfigurationError(
            f"can't {what}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile)"
        ) from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown error")
        if code in {"NoSuchKey", "404"}:
            raise FileNotFoundError(f"can't {what}: there is no such object") from error
        if code in {"PreconditionFailed", "412"}:
            raise ObjectChangedError(f"can't {what}: it was overwritten in the meantime") from error
        raise _s3_error(what, code, setting) from error
    except (ConnectionError, HTTPClientError) as error:
        raise unreachable(setting)(f"can't {what}: {one_line(error)} (check AWS_ENDPOINT_URL_S3)") from error
    except BotoCoreError as error:  # an invalid bucket name, URL or profile
        raise ConfigurationError(
            f"can't {what}: {one_line(error)} (check {setting}, AWS_ENDPOINT_URL_S3 and AWS_PROFILE)"
        ) from error
