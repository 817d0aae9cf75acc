"""`python -m ops <command>`: the daily operation of a deployed stack."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.adapters.captures_table import TableError
from agent_log_capture.domain.capture import REGIONS
from ops.dead_letters import replay
from ops.errors import NEEDS_A_PERSON, USAGE, OperatorError, explain
from ops.job import job
from ops.send import send
from ops.stack import Stack, read_stage
from ops.status import status

_EXIT_CODES = "Exit code: 0 all is well, 1 an operator has to act, 2 the command could not run."

type Command = Callable[[Stack, argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        stage = read_stage(options.stage)
        session = Session(region_name=options.region or stage.get("region"), profile_name=stage.get("profile"))
        run: Command = options.run
        return run(Stack(options.stack_name or stage["stack_name"], session, options.endpoint_url), options)
    except (OperatorError, TableError) as error:
        message = str(error)
    except (BotoCoreError, ClientError) as error:
        message = explain(error)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return NEEDS_A_PERSON
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe; without this, Python reports that once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NEEDS_A_PERSON
    print(f"{options.command}: {message}", file=sys.stderr)
    return USAGE


def _send(stack: Stack, options: argparse.Namespace) -> int:
    return send(stack, options.file, skip_bad=options.skip_bad, backup_region=options.backup_region)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--stage", default="default", help="a stage of samconfig.toml (default: %(default)s)")
    common.add_argument("--stack-name", help="overrides the stage's stack")
    common.add_argument("--region", help="overrides the AWS region of the stage and of your AWS configuration")
    common.add_argument("--endpoint-url", help="overrides the address of AWS")
    parser = argparse.ArgumentParser(prog="python -m ops", description=__doc__, epilog=_EXIT_CODES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, what: str, run: Command) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=what, description=what, epilog=_EXIT_CODES)
        added.set_defaults(run=run)
        return added

    command("status", "show the queue, the dead letters and the token", lambda stack, _: status(stack))
    sending = command("send", "send a list of agents, or the rest of an interrupted one", _send)
    sending.add_argument("file", help="the list: IDs separated by commas, white space or lines; - is standard input")
    sending.add_argument("--skip-bad", action="store_true", help="skip what is not an agent ID, and send the rest")
    sending.add_argument("--backup-region", type=str.upper, choices=sorted(REGIONS), help="of all agents in the list")
    replaying = command("replay", "move the dead letters to CaptureQueue", lambda stack, o: replay(stack, yes=o.yes))
    replaying.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    reporting = command("job", "show the agents of a job", lambda stack, o: job(stack, o.job, path=o.csv))
    reporting.add_argument("job", help="the name of the job, or the job_id of a notification")
    reporting.add_argument("--csv", type=Path, help="also write one line for each agent to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
