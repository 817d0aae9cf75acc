"""moto in place of AWS: a server for one request at a time, as strict as AWS."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import requests
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from local.dynamodb import strict_dynamodb
from local.sqs import complete_sqs

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "embedded",
    "AWS_SECRET_ACCESS_KEY": "embedded",
    "AWS_DEFAULT_REGION": "us-east-1",
}

type Moto = AbstractContextManager[str | None]


@contextmanager
def embedded_aws(*, time: Callable[[], float], moto: Moto | None = None) -> Iterator[str | None]:
    """Let every AWS client use moto for the duration of the `with` block, and yield the server's URL.

    `moto` takes the place of the server; then there is no URL.
    """
    with (
        patch.dict(os.environ, _ENVIRONMENT),
        moto or _server() as url,
        patch.dict(os.environ, {"AWS_ENDPOINT_URL": url} if url else {}),
        complete_sqs(time),
        strict_dynamodb(),
    ):
        yield url


@contextmanager
def _server() -> Iterator[str]:
    """Run moto as a server.

    It serves one request at a time, because moto is not thread-safe: a condition and its write are two steps, and a
    cancelled transaction writes the old items back.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=False, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.port}"
    # moto keeps its state in the process, from one server to the next.
    requests.post(f"{url}/moto-api/reset", timeout=10)
    try:
        yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
