"""A process that answers each line of JSON that it is sent with one of its own."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class ProcessEndedError(Exception):
    """The process has ended; why stands on the terminal."""


class LineProcess:
    """A process, for as long as the `with` block lasts; it is killed at its end.

    Its environment is what it is given and no more. `ask` is for one thread at a time.
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def ask(self, question: object) -> Any:  # noqa: ANN401 (it is what the process answers)
        """Return the answer to a question; ProcessEndedError when none comes."""
        assert self._process.stdin  # for the type checker
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> Any:  # noqa: ANN401 (as above)
        """Return what the process says next; ProcessEndedError when it has ended."""
        assert self._process.stdout  # for the type checker
        line = self._process.stdout.readline()
        if not line:
            raise ProcessEndedError(" ".join(self._command))
        return json.loads(line)
