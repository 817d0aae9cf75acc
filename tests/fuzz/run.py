"""Fuzzes one target: `python -m tests.fuzz.run intake`, then options of libFuzzer and folders of inputs."""

import importlib
import sys

try:
    import atheris
except ModuleNotFoundError:
    sys.exit("there is no fuzzing here: atheris has wheels for Linux on x86-64 alone")

if __name__ == "__main__":
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["agent_log_capture", "urllib3"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()
