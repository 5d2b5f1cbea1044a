"""Who may talk to the page: browsers that show it, not pages of others that a browser shows as well."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# NiceGUI evaluates its own templates, hence the unsafe ones; whatever they do, nothing comes from elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'self'; form-action 'self';"
    " base-uri 'self'"
)


def refusal(host: str, origin: str | None, public_url: str) -> str | None:
    """Say why a request is refused, None if it isn't.

    A name that isn't expected may be another site's that has been pointed at this machine (DNS rebinding),
    which an address can't be.

    Args:
        host: The request's ``Host``.
        origin: Its ``Origin``: the page that sends it, as far as browsers say.
        public_url: Where people reach the page, if that isn't this machine: a proxy's URL.
    """
    public = urlsplit(public_url)
    name = urlsplit(f"//{host}").hostname or ""
    if not (_is_address(name) or name in {"localhost", public.hostname}):
        return f"this page does not know the name {name}: set IOT_EXPLORE_URL to the address that people use"
    if origin is None:
        return None
    sender = urlsplit(origin)
    if sender.netloc in {host, public.netloc} and sender.netloc:
        return None
    return "a page of another origin can't use this one; behind a proxy, set IOT_EXPLORE_URL to its address"


def user_of(headers: Headers, trusted_header: str) -> str:
    """Return who sends a request, as a proxy says; empty unless there is one that is trusted.

    Args:
        headers: The request's.
        trusted_header: The one that the proxy sets, whatever a browser has sent in it; empty for none.
    """
    return headers.get(trusted_header, "").strip() if trusted_header else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class SameOrigin:
    """ASGI middleware that refuses requests of other origins, web sockets too."""

    def __init__(self, app: ASGIApp, public_url: str = "") -> None:
        """Wrap an application; `public_url` as for `refusal`."""
        self._app = app
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reason = refusal(headers.get("host", ""), headers.get("origin"), self._public_url)
        if reason is None:
            await self._app(scope, receive, _with_policy(send))
        elif scope["type"] == "http":
            await PlainTextResponse(reason, 403)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "another origin"})


def _with_policy(send: Send) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
        await send(message)

    return add
