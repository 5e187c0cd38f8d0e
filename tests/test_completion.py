"""Shell completion in a real bash, with the script that `nas --show-completion` gives."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = shutil.which("bash")
NAS = Path(sys.executable).with_name("nas")

COMPLETE = """
eval "$(_NAS_COMPLETE=source_bash nas)"
COMP_WORDS=(nas "$@")
COMP_CWORD=$#
_nas_completion nas
printf '%s\\n' "${COMPREPLY[@]}"
"""

pytestmark = pytest.mark.skipif(BASH is None or not NAS.exists(), reason="no bash, or the command is not installed")


def completed(*words: str) -> list[str]:
    """What bash offers when Tab is pressed after the last of the words."""
    path = f"{NAS.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("--ver",), {"--version"}),
        (("se",), {"search"}),
        (("re",), {"report", "reproduce"}),
        (("search", "--lim"), {"--limit"}),
        (("export", "--"), {"--format", "--target", "--int8", "--out", "--dataset", "--data-dir", "--help"}),
        (("latency", "ca"), {"calibrate"}),
        (("latency", "calibrate", "--sp"), {"--space"}),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",  # a set has no order that processes share
)
def test_tab_offers_what_fits(words: tuple[str, ...], offered: set[str]) -> None:
    assert set(completed(*words)) == offered


def test_tab_is_quick() -> None:
    """Processor time, which other work on the machine does not lengthen: the script's own and the command's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    completed("se")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2  # two starts of nas
