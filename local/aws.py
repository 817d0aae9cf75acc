"""moto in place of AWS: as a server or in this process, one request at a time, and as strict as AWS."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import requests
from botocore.awsrequest import AWSPreparedRequest
from moto import mock_aws
from moto.core.config import DefaultConfig
from moto.core.models import botocore_stubber
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from local.dynamodb import strict_dynamodb
from local.sqs import complete_sqs

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "embedded",
    "AWS_SECRET_ACCESS_KEY": "embedded",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# Requests to the fake API pass through moto.
_CONFIG: DefaultConfig = {
    "core": {"mock_credentials": False, "passthrough": {"urls": ["http://127.0.0.1"], "services": []}}
}

type Response = tuple[int, Mapping[str, str], str | bytes] | None
type Transport = Callable[..., Response]


@contextmanager
def embedded_aws(*, time: Callable[[], float], transport: Transport | None = None) -> Iterator[str | None]:
    """Let every AWS client use moto for the duration of the `with` block, and yield the server's URL.

    With a `transport` moto answers in this process, several times as fast, and there is no URL. It gets every
    `request` of every AWS client, and the function that would `serve` it.
    """
    with (
        patch.dict(os.environ, _ENVIRONMENT),
        _in_process(transport) if transport else _server() as url,
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


@contextmanager
def _in_process(transport: Transport) -> Iterator[None]:
    process, lock = botocore_stubber.process_request, threading.RLock()

    def serve(request: AWSPreparedRequest) -> Response:
        with lock:  # one request at a time, as the server
            return process(request)

    # moto answers in the first of botocore's `before-send` hooks, so that no other hook could come before it.
    hook = partial(transport, serve=serve)
    with mock_aws(config=_CONFIG), patch.object(botocore_stubber, "process_request", hook):
        yield
