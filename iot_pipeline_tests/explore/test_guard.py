"""Pages of others can't use this one."""

import pytest
from starlette.datastructures import Headers

from iot_pipeline.explore._guard import refusal, user_of

PUBLIC = "https://sensors.example.com"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", None),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost:8080", "http://localhost:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("192.168.1.7:8080", "http://192.168.1.7:8080"),
        ("sensors.example.com", PUBLIC),
        ("127.0.0.1:8080", PUBLIC),  # a proxy that puts in its own name for the host
    ],
)
def test_this_page_may_talk_to_its_server(host: str, origin: str | None) -> None:
    assert refusal(host, origin, PUBLIC) is None


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:9999", "null", ""])
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    assert "another origin" in str(refusal("127.0.0.1:8080", origin, PUBLIC))
    assert "another origin" in str(refusal("127.0.0.1:8080", origin, ""))


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "localhost.evil.example", "", "sensors.example.com.evil"]
)
def test_another_sites_name_for_this_machine_is_refused(host: str) -> None:
    assert "IOT_EXPLORE_URL" in str(refusal(host, f"http://{host}", PUBLIC))


FORGED = Headers({"X-Forwarded-User": "boss", "Remote-User": "anna"})


def test_no_header_says_who_somebody_is_unless_it_is_trusted() -> None:
    assert user_of(FORGED, "") == ""


def test_the_trusted_header_alone_says_who_somebody_is() -> None:
    assert user_of(FORGED, "remote-user") == "anna"
    assert user_of(Headers({"X-Forwarded-User": "boss"}), "Remote-User") == ""
