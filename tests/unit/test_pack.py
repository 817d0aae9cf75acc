"""How the functions are packed, without a package registry; tests/e2e tests the result."""

import hashlib
import importlib.util
import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from zipfile import ZipFile

import botocore
import pytest
from botocore.session import Session

import pack
from agent_log_capture import bootstrap

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(botocore.__file__).parents[1]
DATA = PACKAGES / "botocore/data"


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestServices:
    def test_they_are_those_that_the_functions_make_clients_of(self, monkeypatch, function_environment):
        made = set()
        create = Session.create_client

        def create_client(session, name, *args, **options):
            made.add(name)
            return create(session, name, *args, **options)

        monkeypatch.setattr(Session, "create_client", create_client)
        for name, value in function_environment.items():
            monkeypatch.setenv(name, value)
        bootstrap.capture_function()
        bootstrap.token_rotation()
        assert set(pack.SERVICES) == made


class TestPython:
    def test_the_one_that_the_functions_run_on_is_accepted(self):
        pack.check_python("cpython", (3, 13))

    @pytest.mark.parametrize("python", [("cpython", (3, 12)), ("cpython", (3, 14)), ("pypy", (3, 13))])
    def test_another_one_fails_the_build(self, python):
        with pytest.raises(SystemExit, match=r"CPython 3\.13 is needed, .+ this is (cpython|pypy) 3\.1[234]$"):
            pack.check_python(*python)

    def test_the_template_and_both_makefiles_name_the_same_version(self):
        version = ".".join(map(str, pack.PYTHON))
        assert f"Runtime: python{version}\n" in (ROOT / "template.yaml").read_text("utf-8")
        assert (ROOT / ".python-version").read_text("utf-8").strip() == version
        makefile = (ROOT / "src/Makefile").read_text("utf-8")
        assert f"for name in python{version} " in makefile
        assert f"version_info[:2] != {pack.PYTHON})" in makefile


class TestInstall:
    WHEEL = "made_up-1.0-py3-none-any.whl"

    @pytest.fixture
    def install(self, tmp_path, monkeypatch):
        """Installs the pinned packages from a folder with one file and no index; returns the installed files."""
        monkeypatch.setattr(pack, "SOURCE", tmp_path)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

        def install(file, pinned):
            with ZipFile(tmp_path / file, "w") as wheel:
                wheel.writestr("made_up.py", "")
                wheel.writestr(
                    "made_up-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n"
                )
                wheel.writestr("made_up-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {file[12:-4]}\n")
                wheel.writestr("made_up-1.0.dist-info/RECORD", "")
            digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
            write(tmp_path, {"requirements.txt": pinned.format(digest=digest)})
            pack.install(tmp_path / "artifact")
            return files_in(tmp_path / "artifact")

        return install

    def test_a_package_that_is_pinned_by_its_hash_is_installed_without_bytecode(self, install):
        installed = install(self.WHEEL, "made-up==1.0 --hash=sha256:{digest}")
        assert {name for name in installed if "dist-info" not in name} == {"made_up.py"}

    @pytest.mark.parametrize(
        ("file", "pinned", "why"),
        [
            (WHEEL, f"made-up==1.0 --hash=sha256:{'0' * 64}", "DO NOT MATCH THE HASHES"),
            (WHEEL, "made-up==1.0", "Hashes are required"),
            (
                "made_up-1.0-cp313-cp313-manylinux2014_aarch64.whl",
                "made-up==1.0 --hash=sha256:{digest}",
                "No matching",
            ),
            ("made_up-1.0.zip", "made-up==1.0 --hash=sha256:{digest}", "No matching"),
        ],
        ids=["another file", "no hash", "compiled", "source"],
    )
    def test_any_other_package_fails_the_build(self, install, capfd, file, pinned, why):
        with pytest.raises(SystemExit, match="pip could not install"):
            install(file, pinned)
        assert why in capfd.readouterr().err


class TestRemove:
    def test_listed_files_and_unused_utilities_are_removed_and_the_rest_is_kept(self, tmp_path):
        kept = {
            "boto3/session.py",
            "botocore/httpsession.py",
            "six-1.dist-info/METADATA",
            "aws_lambda_powertools/utilities/serialization.py",
            "aws_lambda_powertools/utilities/parameters/base.py",
        }
        gone = {
            "bin/jp.py",
            "boto3/data/s3/1/resources-1.json",
            "botocore/cacert.pem",
            "six-1.dist-info/RECORD",
            "six-1.dist-info/licenses/LICENSE",
            "aws_lambda_powertools/utilities/parser/parser.py",
        }
        write(tmp_path, dict.fromkeys(kept | gone, ""))
        pack.remove(tmp_path)
        assert files_in(tmp_path) == kept

    # pip creates "bin" only with --target.
    @pytest.mark.parametrize("pattern", [pattern for pattern in pack.REMOVED if pattern != "bin"])
    def test_every_listed_pattern_matches_a_file_of_the_packages(self, pattern):
        assert next(PACKAGES.glob(pattern), None)

    @pytest.mark.parametrize("name", sorted(pack.UTILITIES))
    def test_every_utility_that_is_kept_exists(self, name):
        assert (PACKAGES / "aws_lambda_powertools/utilities" / name).is_dir()


class TestData:
    @pytest.fixture
    def data(self, tmp_path):
        """A part of botocore's data."""
        for name in ("cloudwatch", "dynamodb", "s3"):
            shutil.copytree(DATA / name, tmp_path / name)
        for name in (*pack.COMMON_FILES, "endpoints.json"):
            shutil.copy(DATA / name, tmp_path)
        return tmp_path

    def test_only_the_newest_version_of_a_used_service_is_kept(self, data):
        pack.reduce_data(data, {"dynamodb"})
        assert files_in(data) == {
            *("_retry.json", "endpoints.json", "partitions.json", "sdk-default-configuration.json"),
            *("dynamodb/2012-08-10/service-2.json", "dynamodb/2012-08-10/endpoint-rule-set-1.json"),
        }

    def test_endpoints_are_kept_by_their_prefix_which_may_differ_from_the_service(self, data):
        whole = json.loads((data / "endpoints.json").read_text("utf-8"))
        pack.reduce_data(data, {"cloudwatch", "dynamodb"})
        reduced = json.loads((data / "endpoints.json").read_text("utf-8"))
        for before, after in zip(whole["partitions"], reduced["partitions"], strict=True):
            wanted = before["services"].keys() & {"monitoring", "dynamodb"}
            assert after["services"] == {name: before["services"][name] for name in wanted}
            assert after.keys() == before.keys()
        assert "monitoring" in reduced["partitions"][0]["services"]

    def test_documentation_is_removed_and_a_member_of_that_name_is_kept(self, data):
        shape = {"documentation": "<p>…</p>", "members": {"documentation": {"shape": "Text"}, "other": [{}]}}
        model = {"metadata": {"endpointPrefix": "new"}, "shapes": {"Shape": shape}}
        write(data, {"new/2026-11-23/service-2.json": json.dumps(model)})
        pack.reduce_data(data, {"new"})
        left = json.loads((data / "new/2026-11-23/service-2.json").read_text("utf-8"))
        assert left["shapes"] == {"Shape": {"members": {"documentation": {"shape": "Text"}, "other": [{}]}}}

    def test_an_unknown_service_fails_the_build(self, data):
        with pytest.raises(SystemExit, match=r"no service sqss$"):
            pack.reduce_data(data, {"sqss"})


class TestBytecode:
    def test_python_uses_it_without_reading_the_source(self, tmp_path):
        write(tmp_path, {"packed_module.py": "def f():\n    return 1\n"})
        pack.add_bytecode(tmp_path)
        write(tmp_path, {"packed_module.py": "def f():\n    return 2\n"})
        spec = importlib.util.spec_from_file_location("packed_module", tmp_path / "packed_module.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.f() == 1

    def test_it_names_the_path_of_the_source_on_lambda(self, tmp_path):
        write(tmp_path, {"a/packed_module.py": "1 / 0"})
        pack.add_bytecode(tmp_path)
        bytecode = next(tmp_path.rglob("*.pyc")).read_bytes()
        assert b"/var/task/a/packed_module.py" in bytecode
        assert bytes(tmp_path) not in bytecode

    def test_a_source_with_a_syntax_error_fails_the_build(self, tmp_path, capsys):
        write(tmp_path, {"broken.py": "def"})
        with pytest.raises(SystemExit):
            pack.add_bytecode(tmp_path)
        assert "broken.py" in capsys.readouterr().out


class TestCommand:
    def test_it_prints_why_it_cannot_pack(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["pack.py", str(tmp_path)])
        monkeypatch.setattr(sys, "version_info", (3, 0))
        with pytest.raises(SystemExit) as error:
            runpy.run_path(pack.__file__, run_name="__main__")
        assert str(error.value).startswith("pack.py: CPython 3.13 is needed, ")
        assert files_in(tmp_path) == set()
