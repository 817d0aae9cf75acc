"""A value of a `make` variable reaches the command unchanged: a shell and make itself do not interpret it."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRINTS_ITS_ARGUMENTS = r"printf '%s\n'"
OPTIONS = {
    "STAGE": ("status", "--stage={}"),
    "REGION": ("status", "--region={}"),
    "STACK_NAME": ("replay", "--stack-name={}"),
    "SINCE": ("logs", "--start-time={} ago"),
    "BACKUP_REGION": ("send", "--backup-region={}"),
    "FILE": ("send", "{}"),
    "JOB": ("job", "{}"),
    "CSV": ("job", "--csv={}"),
}


@pytest.fixture
def make(tmp_path):
    """Runs a target with commands that print their arguments in place of sam and `python -m ops`; returns them."""

    def run(target, *, sam=PRINTS_ITS_ARGUMENTS, done=("build",), **variables):
        values = [f"{name}={value}" for name, value in variables.items()]
        # The environment of the tests exists already, and must not be installed again.
        finished = [f"--old-file={each}" for each in (".venv/installed", *done)]
        command = ["make", "--silent", *finished, target, f"OPS={PRINTS_ITS_ARGUMENTS}", f"SAM={sam}", *values]
        # Without the variables of the make that runs the tests.
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
def test_a_value_is_an_argument_even_if_a_shell_would_run_it(make, name, value):
    value = value.format(make.marker)
    target, argument = OPTIONS[name]
    assert argument.format(value) in make(target, **{"FILE": "agents.txt", "JOB": "a-job", name: value})
    assert not make.marker.exists()


def test_a_make_that_sam_runs_does_not_interpret_a_value(make, tmp_path):
    (tmp_path / "Makefile").write_text("build:\n\t@echo built\n")
    sub_make = f"make --silent -C {tmp_path} build #"
    assert make("deploy", sam=sub_make, STAGE=f"$(shell touch {make.marker})")[0] == "built"
    assert not make.marker.exists()


def test_deploy_uses_the_settings_of_its_stage_and_says_that_the_token_is_next(make):
    *command, next_step = make("deploy", STAGE="staging", REGION="eu-west-1")
    assert command == ["deploy", "--config-env=staging", "--region=eu-west-1"]
    assert "put the token" in next_step


def test_nothing_is_deployed_after_a_build_that_fails(make):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("deploy", done=(), BIN="/nowhere")
    assert failed.value.stdout == ""


def test_options_without_a_value_are_left_out(make):
    assert make("status") == ["status", "--stage=default"]
    assert make("logs") == ["logs", "--tail", "--config-env=default"]
    assert make("replay") == ["replay", "--stage=default"]
    assert make("send", FILE="-") == ["send", "--stage=default", "--", "-"]
    assert make("job", JOB="night shift") == ["job", "--stage=default", "--", "night shift"]


def test_switches_are_passed_on(make):
    assert make("replay", YES="1") == ["replay", "--stage=default", "--yes"]
    assert make("replay", YES="0") == ["replay", "--stage=default"]
    assert "--skip-bad" in make("send", FILE="agents.txt", SKIP_BAD="1")


@pytest.mark.parametrize(("target", "advice"), [("send", "FILE=agents.txt"), ("job", "JOB=")])
def test_a_target_without_its_required_value_says_which_one_it_is(make, target, advice):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make(target)
    assert advice in failed.value.stderr
