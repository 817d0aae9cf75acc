"""What is typed behind a `make` target reaches the command as it is: no shell, and not make itself, reads it."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "STAGE": ("status", "--stage="),
    "REGION": ("status", "--region="),
    "STACK_NAME": ("replay", "--stack-name="),
    "SINCE": ("logs", "--since="),
    "BACKUP_REGION": ("send", "--backup-region="),
    "FILE": ("send", ""),
}


@pytest.fixture
def make(tmp_path):
    """Runs a target with a command that prints its arguments in place of `python -m ops`; returns them."""

    def run(target, command=r"OPS=printf '%s\n'", **variables):
        values = [f"{name}={value}" for name, value in variables.items()]
        # The environment of the tests is there already, and must not be made anew below them.
        command = ["make", "--silent", "--old-file=.venv/installed", target, command, *values]
        # Nor does the make that runs the tests have a say in it.
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    run.marker = tmp_path / "was-run"
    return run


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    "value",
    [
        "`touch {}`",
        "$(touch {})",
        "$$(touch {})",
        "$(shell touch {})",
        "; touch {}",
        '"; touch {} "',
        "a b'c\"d$e#f*",
    ],
)
def test_a_value_is_an_argument_whatever_a_shell_would_make_of_it(make, name, value):
    value = value.format(make.marker)
    target, option = OPTIONS[name]
    assert f"{option}{value}" in make(target, **{"FILE": "agents.txt", name: value})
    assert not make.marker.exists()


def test_a_make_below_does_not_read_a_value_either(make, tmp_path):
    (tmp_path / "Makefile").write_text("build:\n\t@echo built\n")
    sub_make = f"OPS=make --silent -C {tmp_path} build #"
    assert make("deploy", sub_make, STAGE=f"$(shell touch {make.marker})") == ["built"]
    assert not make.marker.exists()


def test_what_is_not_said_is_left_to_the_command(make):
    assert make("status") == ["status", "--stage=default"]
    assert make("logs") == ["logs", "--stage=default"]
    assert make("replay") == ["replay", "--stage=default"]
    assert make("send", FILE="-") == ["send", "--stage=default", "--", "-"]


def test_switches_are_handed_on(make):
    assert make("replay", YES="1") == ["replay", "--stage=default", "--yes"]
    assert make("replay", YES="0") == ["replay", "--stage=default"]
    assert "--skip-bad" in make("send", FILE="agents.txt", SKIP_BAD="1")


def test_sending_without_a_list_says_which_one_is_wanted(make):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("send")
    assert "FILE=agents.txt" in failed.value.stderr
