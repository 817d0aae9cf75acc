"""The packed functions: they run, contain nothing else, and are the same every time."""

import importlib.util
import json
import subprocess
import sys

import boto3
import pytest

import pack
from local.build import FUNCTIONS, BuildError, build, unzipped_bytes, zipped_bytes

SERVICES = set(pack.SERVICES)
CLIENTS = """
import botocore.session

made = []
make = botocore.session.Session.create_client
botocore.session.Session.create_client = lambda self, name, *args, **options: (
    made.append(name) or make(self, name, *args, **options)
)
from agent_log_capture.handlers import capture, rotate_token
from agent_log_capture import bootstrap

bootstrap.capture_function()
bootstrap.token_rotation()
result = made
"""
# A signed URL shows the address of a call; it is made for the first operation without required input.
ENDPOINTS = """
import boto3

def endpoint(service, region):
    client = session.client(service, region_name=region)
    shapes = {
        method: client.meta.service_model.operation_model(name).input_shape
        for method, name in client.meta.method_to_api_mapping.items()
    }
    method = next(method for method, shape in shapes.items() if not (shape and shape.required_members))
    url = client.generate_presigned_url(method).partition("?")[0]
    return url, client.meta.endpoint_url, client.meta.region_name

session = boto3.session.Session()
result = [endpoint(service, region) for service, region in given]
"""
CERTIFICATES = """
import requests
from botocore.httpsession import get_cert_path

result = [requests.certs.where(), get_cert_path(True)]
"""


@pytest.fixture
def artifact(built):
    return built / "CaptureFunction"  # the other one is the same, as the test of both shows


@pytest.fixture
def run(artifact, function_environment):
    """Runs code in a Python that has only the packed files; returns its variable `result`."""

    def run(code, given=None):
        code = f"import json, sys; sys.path.insert(0, sys.argv[1]); given = json.loads(sys.argv[2])\n{code}"
        command = [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", f"{code}\nprint(json.dumps(result))"]
        arguments = [artifact, json.dumps(given)]
        process = subprocess.run([*command, *arguments], env=function_environment, capture_output=True, check=False)
        assert process.returncode == 0, process.stderr.decode()
        return json.loads(process.stdout)

    return run


def test_both_handlers_start_and_make_clients_of_the_packed_services(run):
    assert set(run(CLIENTS)) == SERVICES


@pytest.mark.parametrize("handler", ["capture", "rotate_token"])
def test_the_garbage_collector_is_enabled_after_the_start(run, handler):
    assert run(f"import gc\nfrom agent_log_capture.handlers import {handler}\nresult = gc.isenabled()") is True


def test_each_client_uses_the_same_endpoints_as_one_with_all_of_botocores_data(run):
    session = boto3.session.Session()
    given = [
        (service, region)
        for service in sorted(SERVICES)
        for partition in session.get_available_partitions()
        for region in session.get_available_regions(service, partition)
    ]
    assert {"us-east-1", "eu-west-1", "cn-north-1"} <= {region for _, region in given}
    names = {"given": given}
    exec(ENDPOINTS, names)  # noqa: S102 (it is defined above)
    expected = [list(each) for each in names["result"]]
    assert run(ENDPOINTS, given) == expected
    assert "https://sqs.cn-north-1.amazonaws.com.cn/" in {url for url, *_ in expected}


def test_both_http_clients_use_the_packed_certificates(run, artifact):
    for path in run(CERTIFICATES):
        assert path == str(artifact / "certifi/cacert.pem")


def test_every_source_has_bytecode_that_python_uses_without_a_check(artifact):
    sources = list(artifact.rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        bytecode = artifact / importlib.util.cache_from_source(source)
        magic, flags, source_hash = (bytecode.read_bytes()[start:end] for start, end in ((0, 4), (4, 8), (8, 16)))
        assert magic == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(flags, "little") == 0b01  # by hash, and not checked
        assert source_hash == importlib.util.source_hash(source.read_bytes())


def test_the_packed_code_is_that_of_the_working_folder(artifact):
    packed, source = artifact / pack.PACKAGE, pack.SOURCE / pack.PACKAGE
    assert sources_in(packed) == sources_in(source)


def sources_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.py")}


def test_no_packed_file_is_compiled_for_one_architecture(artifact):
    assert [path for path in artifact.rglob("*") if ".so" in path.suffixes] == []


def test_botocores_data_has_only_the_services_that_are_called(artifact):
    data = artifact / "botocore/data"
    assert {path.name for path in data.iterdir() if path.is_dir()} == SERVICES
    assert {path.name for path in data.iterdir() if path.is_file()} == {*pack.COMMON_FILES, "endpoints.json"}
    assert {path.name for path in data.glob("*/*/*")} <= {
        "service-2.json",
        "service-2.sdk-extras.json",
        "endpoint-rule-set-1.json",
    }


def test_files_of_the_build_are_not_packed(artifact):
    assert [name for name in ("Makefile", "pack.py", "requirements.txt", "bin") if (artifact / name).exists()] == []


def test_scanners_find_the_names_of_all_packages(artifact):
    packed = {path.parent.name.partition("-")[0].replace("_", "-") for path in artifact.glob("*.dist-info/METADATA")}
    lines = (pack.SOURCE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert packed == {line.partition("==")[0] for line in lines if "==" in line}
    assert {path.name for path in artifact.glob("*.dist-info/*")} == {"METADATA"}


def test_the_artifact_is_small(artifact):
    assert zipped_bytes(artifact) < 4_000_000
    assert unzipped_bytes(artifact) < 11_000_000


def test_two_builds_have_the_same_bytes_and_modes(built):
    # `sam build` packs each function separately.
    one, other = (contents(built / function) for function in FUNCTIONS)
    assert one == other
    assert {mode for _, mode in one.values()} == {0o644}


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mode & 0o7777) for path in files}


def test_a_failed_build_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHON", "")
    with pytest.raises(BuildError, match=r"there is no Python 3\.13 here"):
        build(tmp_path / "build")
