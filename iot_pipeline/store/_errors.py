"""What the faults of a place mean to its user: one line that says what to check, without a secret.

S3 is reached by two libraries, boto3 and the one inside ``deltalake``; both pass on S3's error codes.
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
"""What S3's codes mean that no second attempt changes."""
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
    """Return an error's text in one line, without the stack that ``deltalake`` adds to it."""
    lines = takewhile(lambda line: not _FRAME.match(line), _MARKS.sub("", str(error)).splitlines())
    causes = [" ".join(line.split()) for line in lines if line.strip()]
    return shorten(": ".join(causes) or type(error).__name__, LONGEST_REASON, placeholder=" …")


def unreachable(setting: str) -> type[IotPipelineError]:
    """Return the error that a place raises when it does not answer as it should."""
    return SourceError if setting == "IOT_SOURCE" else WarehouseUnreachableError


def table_error(what: str, error: Exception, setting: str = "IOT_WAREHOUSE") -> IotPipelineError:
    """Return what ``deltalake`` says of a table as an error of ours.

    Args:
        what: What couldn't be done, like ``write s3://bucket/timeseries``.
        error: What it has raised.
        setting: The environment variable that names the place.

    Returns:
        A ``WarehouseUnreachableError``, which may pass, or a ``ConfigurationError`` where S3 is the cause,
        else a ``WarehouseError``.
    """
    text = _MARKS.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if "S3 error" not in text:
        return WarehouseError(f"can't {what}: {one_line(error)}")
    code = re.search(r"<Code>(\w+)</Code>", text)
    return _s3_error(what, code[1] if code else lines[-1].rpartition(": ")[2], setting)


def query_error(what: str, error: Exception) -> IotPipelineError:
    """Return what DuckDB says of a query as an error of ours.

    It shows what is raised while it reads from S3 as a traceback, the error in the last line.

    Args:
        what: What couldn't be done, like ``read s3://bucket``.
        error: What it has raised.
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
    """Turn boto3's errors into ours.

    Args:
        what: What the block does, like ``list s3://bucket``.
        setting: The environment variable that names the place.

    Raises:
        FileNotFoundError: There is no such object.
        ObjectChangedError: A condition of the request does not hold.
        ConfigurationError: The server refuses, or a setting can't be right.
        SourceError: The source's server does not answer as it should.
        WarehouseUnreachableError: The warehouse's server does not.
    """
    from botocore.exceptions import (  # noqa: PLC0415 - slow to import, and not needed for a directory
        BotoCoreError,
        ClientError,
        ConnectionError,  # noqa: A004 - not Python's
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
            raise ObjectChangedError(f"can't {what}: it was overwritten meanwhile") from error
        raise _s3_error(what, code, setting) from error
    except (ConnectionError, HTTPClientError) as error:
        raise unreachable(setting)(f"can't {what}: {one_line(error)} (check AWS_ENDPOINT_URL_S3)") from error
    except BotoCoreError as error:  # a bucket, a URL or a profile that there can't be
        raise ConfigurationError(
            f"can't {what}: {one_line(error)} (check {setting}, AWS_ENDPOINT_URL_S3 and AWS_PROFILE)"
        ) from error
    except ValueError:  # it repeats the URL, which may hold a password
        raise ConfigurationError(f"can't {what}: AWS_ENDPOINT_URL_S3 is not a URL") from None
