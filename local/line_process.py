"""A process that reads lines of JSON and answers each with a line of JSON."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self


class ProcessEndedError(Exception):
    """The process has ended; the terminal shows why."""


class LineProcess:
    """A process for the duration of the `with` block, which kills it at its end.

    It inherits no environment. `ask` is for one thread at a time.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 (the callers name their own files)
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
            env=self._environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def ask(self, question: object) -> Any:  # noqa: ANN401 (it is what the process answers)
        """Return the answer to a question; ProcessEndedError when the process has ended."""
        assert self._process.stdin  # for the type checker
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> Any:  # noqa: ANN401 (as above)
        """Return the next line; ProcessEndedError when the process has ended."""
        assert self._process.stdout  # for the type checker
        line = self._process.stdout.readline()
        if not line:
            raise ProcessEndedError(" ".join(self._command))
        return json.loads(line)
