"""Both clients with servers that they must not trust, and in an environment that must have no effect."""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
import requests
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent_log_capture.adapters import http_session
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import build_session
from agent_log_capture.adapters.identity import Identity, IdentityError
from agent_log_capture.domain.auth_token import AuthToken, Credentials
from agent_log_capture.domain.capture import Capture
from agent_log_capture.domain.outcome import Reason, Trigger, TriggerType
from agent_log_capture.domain.responses import RetryableError
from tests.fuzz.answers import check_chain

# Python warns about a server that is limited to it.
pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")

HOST = "127.0.0.1"
NOW = datetime(2026, 11, 23, 3, 12, 40, tzinfo=UTC)
DAY = timedelta(days=1)
TOKEN = AuthToken("the-token-itself", "110011")
CREDENTIALS = Credentials("backup-bot", "the-api-key-itself")
CAPTURE = Capture(
    agent_id="agent", region="DFW", trigger=Trigger(TriggerType.MANUAL, "request"), asked_at=NOW, retry_from=NOW
)
ACCESS = {"access": {"token": {"id": "new", "expires": "2026-11-24T03:12:40Z", "tenant": {"id": "110011"}}}}
needs_old_tls = pytest.mark.skipif(not ssl.HAS_TLSv1_1, reason="this OpenSSL cannot speak TLS 1.1")


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.received.append((self.requestline, self.headers))
        if self.server.break_off:
            self.server.break_off(self.connection)
            return
        content = json.dumps(ACCESS).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_CONNECT = answer  # noqa: N815 (http.server looks for these names)

    def log_message(self, *_):
        """Write nothing."""


class Server(ThreadingHTTPServer):
    """Records every request that it can read; `received` is complete once it has stopped."""

    daemon_threads = False

    def __init__(self, tls, break_off):
        super().__init__((HOST, 0), Handler)
        self.tls = tls
        self.break_off = break_off
        self.received = []
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.server_port}"

    def get_request(self):
        connection, address = super().get_request()
        if self.tls:
            # The handshake is left to the connection's own thread.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, *_):
        """Write nothing: handshakes that fail are what this is for."""


@contextlib.contextmanager
def serving(tls=None, break_off=None):
    with Server(tls, break_off) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        try:
            yield server
        finally:
            server.shutdown()


def server_tls(certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(tls)
    return tls


def good(ca):
    return server_tls(ca.issue_cert(HOST))


def for_another_name(ca):
    return server_tls(ca.issue_cert("elsewhere.example"))


def for_another_address(ca):
    return server_tls(ca.issue_cert("127.0.0.2"))


def for_the_host_in_its_common_name_alone(ca):
    return server_tls(ca.issue_cert("elsewhere.example", common_name=HOST))


def expired(ca):
    now = datetime.now(UTC)
    return server_tls(ca.issue_cert(HOST, not_before=now - 2 * DAY, not_after=now - DAY))


def not_yet_valid(ca):
    now = datetime.now(UTC)
    return server_tls(ca.issue_cert(HOST, not_before=now + DAY, not_after=now + 2 * DAY))


def speaking_old_tls_alone(ca):
    tls = good(ca)
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")  # or OpenSSL would not let it
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    return tls


class SelfSigned:
    """A certificate for the host that is signed with its own key."""

    def __init__(self, path):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private + certificate.public_bytes(pem))
        self.path = path

    def configure_cert(self, tls):
        tls.load_cert_chain(self.path)


@pytest.fixture
def ca():
    """An authority for one test, so that no other test trusts it."""
    return trustme.CA()


@pytest.fixture
def ca_file(ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def session():
    with build_session(1) as session:
        yield session


@pytest.fixture
def trusting(session, ca_file):
    """A session that trusts the test's authority, too, and is otherwise as it was built."""
    tls_context(session).load_verify_locations(ca_file)
    return session


def tls_context(session):
    return session.get_adapter("https://").poolmanager.connection_pool_kw["ssl_context"]


def request_log_file(session, url):
    return CloudBackup(session, url, lambda: NOW).request_log_file(TOKEN, CAPTURE)


def find_log_file(session, url):
    return CloudBackup(session, url, lambda: NOW).find_log_file(TOKEN, CAPTURE, lambda log_file: log_file.is_pending)


def authenticate(session, url):
    return Identity(session, url).authenticate(CREDENTIALS)


def failure_of(call, session, url):
    with pytest.raises(RetryableError) as caught:
        call(session, url)
    check_chain(caught.value, TOKEN.value)
    return caught.value.failure


def assert_the_api_is_not_connected(session, url):
    assert failure_of(request_log_file, session, url).reason is Reason.NOT_CONNECTED


def assert_identity_does_not_answer(session, url):
    with pytest.raises(IdentityError, match=r"^Identity does not answer: ") as caught:
        authenticate(session, url)
    check_chain(caught.value, CREDENTIALS.api_key)


both_refuse = pytest.mark.parametrize(
    "assert_refused", [assert_the_api_is_not_connected, assert_identity_does_not_answer], ids=["api", "identity"]
)
both_call = pytest.mark.parametrize("call", [request_log_file, authenticate], ids=["api", "identity"])


@both_call
def test_a_good_certificate_of_a_trusted_authority_is_accepted(trusting, ca, call):
    with serving(good(ca)) as server:
        call(trusting, server.url)
    [(_, headers)] = server.received
    assert headers.get("X-Auth-Token") == (TOKEN.value if call is request_log_file else None)


@both_refuse
def test_an_unknown_authority_is_refused_before_anything_is_sent(session, ca, assert_refused):
    with serving(good(ca)) as server:
        assert_refused(session, server.url)
    assert server.received == []


@both_refuse
def test_a_self_signed_certificate_is_refused_before_anything_is_sent(session, tmp_path, assert_refused):
    with serving(server_tls(SelfSigned(tmp_path / "self-signed.pem"))) as server:
        assert_refused(session, server.url)
    assert server.received == []


@both_refuse
def test_verification_cannot_be_switched_off(session, ca, assert_refused):
    session.verify = False
    with serving(good(ca)) as server:
        assert_refused(session, server.url)
    assert server.received == []


def test_a_self_signed_certificate_has_no_other_fault(session, tmp_path):
    certificate = SelfSigned(tmp_path / "self-signed.pem")
    tls_context(session).load_verify_locations(certificate.path)
    with serving(server_tls(certificate)) as server:
        assert request_log_file(session, server.url).http_status == 200


@both_refuse
@pytest.mark.parametrize(
    "faulty",
    [
        for_another_name,
        for_another_address,
        for_the_host_in_its_common_name_alone,
        expired,
        not_yet_valid,
        pytest.param(speaking_old_tls_alone, marks=needs_old_tls),
    ],
)
def test_a_fault_is_refused_although_the_authority_is_trusted(trusting, ca, faulty, assert_refused):
    with serving(faulty(ca)) as server:
        assert_refused(trusting, server.url)
    assert server.received == []


@needs_old_tls
def test_a_server_of_old_tls_works_with_a_client_of_old_tls(ca, ca_file):
    tls = ssl.create_default_context(cafile=ca_file)
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    tls.minimum_version = ssl.TLSVersion.TLSv1_1
    with serving(speaking_old_tls_alone(ca)) as server:
        assert status_of_get(server, tls) == 200


def status_of_get(server, tls):
    connection = http.client.HTTPSConnection(HOST, server.server_port, context=tls, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().status


@both_refuse
def test_a_server_that_speaks_no_tls_gets_nothing(session, assert_refused):
    with serving() as server:
        assert_refused(session, server.url.replace("http:", "https:"))
    assert server.received == []


@both_refuse
def test_a_connection_that_is_closed_in_the_handshake_is_not_connected(session, monkeypatch, assert_refused):
    monkeypatch.setattr(Server, "verify_request", lambda *_: False)
    with serving() as server:
        assert_refused(session, server.url.replace("http:", "https:"))
    assert server.received == []


@both_refuse
def test_a_handshake_that_times_out_is_not_connected(session, monkeypatch, assert_refused):
    monkeypatch.setattr(http_session, "CONNECT_TIMEOUT_SECONDS", 0.2)
    with socket.create_server((HOST, 0)) as silent:
        assert_refused(session, f"https://{HOST}:{silent.getsockname()[1]}")


def end_without_a_word(_):
    """Leave the connection to be closed, without a response and without TLS's own closing message."""


def end_in_plain_text(connection):
    socket.socket.sendall(connection, b"HTTP/1.1 202 Accepted\r\n\r\n")


breaking_off = pytest.mark.parametrize("break_off", [end_without_a_word, end_in_plain_text])


@breaking_off
@pytest.mark.parametrize(
    ("call", "reason"), [(request_log_file, Reason.UNCONFIRMED), (find_log_file, Reason.TEMPORARY)]
)
def test_tls_that_breaks_after_the_request_leaves_it_unconfirmed(trusting, ca, break_off, call, reason):
    with serving(good(ca), break_off) as server:
        failure = failure_of(call, trusting, server.url)
    [(_, headers)] = server.received
    assert headers["X-Auth-Token"] == TOKEN.value
    assert (failure.reason, failure.unconfirmed_since) == (reason, NOW if call is request_log_file else None)


@breaking_off
def test_tls_that_breaks_after_the_credentials_shows_nothing_of_them(trusting, ca, break_off):
    with serving(good(ca), break_off) as server:
        assert_identity_does_not_answer(trusting, server.url)
    assert len(server.received) == 1


def test_an_error_of_another_call_does_not_make_a_request_count_as_not_sent(trusting, ca):
    """A second call is made while the first one's failure to connect is being handled."""
    with serving(good(ca), end_in_plain_text) as server, serving() as without_tls:
        try:
            request_log_file(trusting, without_tls.url.replace("http:", "https:"))
        except RetryableError:
            assert failure_of(request_log_file, trusting, server.url).reason is Reason.UNCONFIRMED
    assert len(server.received) == 1


class TestEnvironment:
    """Each test also shows that a client that trusts its environment does follow it."""

    PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

    @pytest.fixture(autouse=True)
    def _clean(self, monkeypatch):
        for name in ("NO_PROXY", "no_proxy", "NETRC", *self.PROXIES, *self.AUTHORITIES):
            monkeypatch.delenv(name, raising=False)

    @both_call
    @pytest.mark.parametrize("tls", [lambda _: None, good], ids=["http", "https"])
    def test_no_proxy_sees_anything(self, monkeypatch, trusting, ca, tls, call):
        with serving() as proxy, serving(tls(ca)) as server:
            for name in self.PROXIES:
                monkeypatch.setenv(name, proxy.url)
            call(trusting, server.url)
            # Its response is a good one for http alone.
            with contextlib.suppress(requests.ConnectionError):
                requests.get(server.url, timeout=10)
        assert (len(server.received), len(proxy.received)) == (1, 1)

    @both_call
    @pytest.mark.parametrize("where", ["NETRC", "HOME"])
    def test_no_netrc_is_read(self, monkeypatch, tmp_path, session, where, call):
        netrc = tmp_path / ".netrc"
        netrc.write_text(f"machine {HOST} login user password something")
        netrc.chmod(0o600)
        monkeypatch.setenv(where, str(netrc if where == "NETRC" else tmp_path))
        with serving() as server:
            call(session, server.url)
            requests.get(server.url, timeout=10)
        [(_, ours), (_, theirs)] = server.received
        assert "Authorization" not in ours
        assert theirs["Authorization"].startswith("Basic ")

    @both_refuse
    @pytest.mark.parametrize("name", AUTHORITIES)
    def test_no_authority_is_trusted_because_a_variable_names_it(
        self, monkeypatch, ca, ca_file, name, assert_refused
    ):
        monkeypatch.setenv(name, ca_file)
        with serving(good(ca)) as server:
            with build_session(1) as session:
                assert_refused(session, server.url)
            if name == "SSL_CERT_FILE":  # requests does not read it, Python's own default context does
                assert status_of_get(server, ssl.create_default_context()) == 200
            else:
                assert requests.get(server.url, timeout=10).status_code == 200
        assert len(server.received) == 1

    @both_call
    def test_the_keys_of_connections_are_not_written_down(self, monkeypatch, tmp_path, ca, ca_file, call):
        keys = tmp_path / "keys"
        monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
        with serving(good(ca)) as server:
            with build_session(1) as session:
                tls_context(session).load_verify_locations(ca_file)
                call(session, server.url)
            assert not keys.exists() or "_SECRET" not in keys.read_text()
            assert status_of_get(server, ssl.create_default_context(cafile=ca_file)) == 200
        assert "_SECRET" in keys.read_text()


def test_all_connections_of_a_session_share_what_they_trust(ca):
    with serving(good(ca)) as server, build_session(4) as session:
        context = tls_context(session)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        trusted = context.cert_store_stats()
        assert_the_api_is_not_connected(session, server.url)
        assert context.cert_store_stats() == trusted
        pools = session.get_adapter(server.url).poolmanager.pools
        [pool] = [pools[key] for key in pools.keys()]  # noqa: SIM118 (urllib3's container has no other way in)
        assert pool.ca_certs is None
