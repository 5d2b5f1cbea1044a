"""The server of the page: one process, all tabs."""

import socket
from functools import partial

from iot_pipeline.errors import ConfigurationError
from iot_pipeline.settings import get_settings


def serve(host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve the page until somebody interrupts.

    Args:
        host: The address to listen on; by default only this machine reaches it.
        port: The port.

    Raises:
        ConfigurationError: NiceGUI isn't installed, or the port is taken.
    """
    try:
        from nicegui import app, run, ui  # noqa: PLC0415 - optional, and slow to import
        from starlette.requests import Request  # noqa: PLC0415 - likewise
    except ImportError:
        raise ConfigurationError(
            "this page needs NiceGUI: pip install 'iot-pipeline[explore]', or make explore"
        ) from None
    from iot_pipeline.explore import _data, _export  # noqa: PLC0415
    from iot_pipeline.explore._guard import SameOrigin, user_of  # noqa: PLC0415
    from iot_pipeline.explore._page import Page  # noqa: PLC0415

    settings = get_settings()
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]  # what follows is the address once more
        raise ConfigurationError(
            f"can't listen on {host}:{port} ({why}): choose another one with --port"
        ) from error
    app.add_middleware(SameOrigin, public_url=settings.explore_url)
    app.add_route(_export.READINGS, _export.answer_readings)
    app.add_route(_export.REPORT, _export.answer_report)
    app.on_startup(partial(run.io_bound, _data.warm_up))

    @ui.page("/")
    async def explore(request: Request) -> None:
        page = Page(request.url.query, user_of(request.headers, settings.explore_user_header))
        await ui.context.client.connected()
        await page.start()

    print(f"looking at {settings.warehouse}: http://{host}:{port}", flush=True)
    ui.run(
        host=host,
        port=port,
        title="iot_pipeline",
        favicon="📈",
        dark=None,
        show=False,
        reload=False,
        tailwind=False,
        reconnect_timeout=30,  # seconds that a busy machine may keep silent
        message_history_length=10,
        show_welcome_message=False,
        gzip_middleware_factory=None,  # loopback is faster than zlib; a proxy may compress
        ws_per_message_deflate=False,
    )
