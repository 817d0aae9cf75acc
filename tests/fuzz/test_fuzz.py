"""What fuzzing has found once is tried again everywhere; where it can be done, a few seconds of it look for more."""

import os
import re
import resource
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import answers, intake

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
CHECKS = {"intake": intake.check, "answers": answers.check}
FOUND = sorted(path.relative_to(CORPUS) for path in CORPUS.glob("*/*"))
SAMPLES = sorted(path.relative_to(ROOT) for path in (ROOT / "events").rglob("*.json"))
# As few as are certain to be reached where every module is counted, and as none is where nothing is.
LEAST_COVERAGE = 200


@pytest.mark.parametrize("path", FOUND, ids=str)
def test_what_was_found_once_stays_harmless(path):
    CHECKS[path.parent.name]((CORPUS / path).read_bytes())


@pytest.mark.parametrize("path", SAMPLES, ids=str)
def test_the_samples_are_harmless(path):
    intake.check((ROOT / path).read_bytes())


def test_the_corpus_is_small():
    assert {path.parent.name for path in FOUND} == CHECKS.keys()
    assert sum((CORPUS / path).stat().st_size for path in FOUND) < 16 * 1024


@pytest.mark.skipif(not find_spec("atheris"), reason="atheris has wheels for Linux on x86-64 alone")
@pytest.mark.parametrize("target", CHECKS)
def test_a_few_seconds_of_fuzzing_find_nothing(target, tmp_path):
    seed = ["-seed=1"] if "CI" in os.environ else []
    # On Linux the peak of a process begins with its parent's.
    peak_mb = 512 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    limits = ["-max_total_time=4", "-timeout=10", f"-rss_limit_mb={peak_mb}", f"-artifact_prefix={tmp_path}/"]
    corpora = [tmp_path, CORPUS / target, ROOT / "events"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, *seed, *limits, *map(str, corpora)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"src{os.pathsep}."},
        capture_output=True,
        check=False,
        timeout=120,
    )
    said = ended.stderr.decode(errors="replace")
    assert ended.returncode == 0, said
    coverage = [int(figure) for figure in re.findall(r"\bcov: (\d+)", said)]
    assert coverage[-1] >= max(coverage[0], LEAST_COVERAGE), said
