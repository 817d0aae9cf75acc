"""`python -m ops <command>`: what an operator does from day to day."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from agent_log_capture.domain.capture import REGIONS
from ops.deploy import deploy
from ops.errors import NEEDS_A_PERSON, USAGE, OperatorError, explained
from ops.logs import logs, parse_since
from ops.replay import replay
from ops.send import default_cache, send
from ops.stack import Stack, read_stage
from ops.status import status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 when all is well, 1 when something needs a person, 2 when it could not be run."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except OperatorError as error:
        why = str(error)
    except (BotoCoreError, ClientError) as error:
        why = explained(error)
    except KeyboardInterrupt:
        print("\nBroken off.", file=sys.stderr)
        return NEEDS_A_PERSON
    except BrokenPipeError:
        # Whoever reads has had enough, as `head` has; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NEEDS_A_PERSON
    print(f"{options.command}: {why}", file=sys.stderr)
    return USAGE


def _run(options: argparse.Namespace) -> int:
    stack = _stack(options)
    match options.command:
        case "deploy":
            return deploy(stack, options.stage)
        case "logs":
            return logs(stack, since=options.since, follow=not options.no_follow, now=_now, pause=time.sleep)
        case "send":
            return send(
                stack,
                options.file,
                skip_bad=options.skip_bad,
                backup_region=options.backup_region,
                cache=default_cache(),
            )
        case "replay":
            return replay(stack, yes=options.yes, ask=input, pause=time.sleep)
        case _:
            return status(stack, now=_now())


def _stack(options: argparse.Namespace) -> Stack:
    stage = read_stage(options.stage)
    session = Session(region_name=options.region or stage.region, profile_name=stage.profile)
    return Stack(options.stack_name or stage.stack_name, session, options.endpoint_url)


def _now() -> datetime:
    return datetime.now(UTC)


def _since(text: str) -> timedelta:
    try:
        return parse_since(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--stage", default="default", help="a stage of samconfig.toml; %(default)s if not said")
    everywhere.add_argument("--stack-name", help="the stack; the stage's if not said")
    everywhere.add_argument("--region", help="the AWS region; the stage's or your AWS configuration's if not said")
    everywhere.add_argument("--endpoint-url", help="where AWS is, for whoever has one of their own")
    codes = "Exit code: 0 all is well, 1 something needs a person, 2 it could not be run."
    parser = argparse.ArgumentParser(prog="python -m ops", description=__doc__, epilog=codes)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[everywhere], help=what, description=what, epilog=codes)

    command("deploy", "build and deploy the stage, and say what comes next")
    command("status", "say what waits, what was given up and whether there is a token")
    reading = command("logs", "show what both functions log")
    reading.add_argument("--since", type=_since, default="10m", help="30s, 10m, 2h, 1d; %(default)s if not said")
    reading.add_argument("--no-follow", action="store_true", help="end with what is there")
    sending = command("send", "send a list of agents, or the rest of one that was broken off")
    sending.add_argument("file", help="the list: IDs between commas, white space or lines; - is the standard input")
    sending.add_argument("--skip-bad", action="store_true", help="send the rest when some are no agent IDs")
    sending.add_argument("--backup-region", type=str.upper, choices=sorted(REGIONS), help="of all these agents")
    replaying = command("replay", "move what is in the dead-letter queue back into CaptureQueue")
    replaying.add_argument("--yes", action="store_true", help="do not ask first")
    return parser


if __name__ == "__main__":
    sys.exit(main())
