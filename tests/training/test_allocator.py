import resource
import subprocess
import sys

import pytest

from nas.training import cpu

SCRIPT = """
import resource, threading
import torch
from nas.training.cpu import give_back, keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def work():
    faults(20)  # where blocks lie settles
    print(faults(5))
    before = resident()
    give_back()
    print(before - resident())

print(faults(5))
keep_freed_memory()
work()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(cpu._glibc() is None, reason="another C library's allocator is left alone")
def test_freed_memory_is_kept_and_given_back() -> None:
    """40 MB, five times: 10,000 pages each are got anew by default, and hardly any when they are kept."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, kept, returned, kept_in_thread, returned_in_thread = map(int, done.stdout.split())
    pages = 40_000_000 // resource.getpagesize()
    assert before >= 4 * pages
    assert kept < pages / 10
    assert kept_in_thread < pages / 10
    assert returned > 30_000_000
    assert returned_in_thread > 30_000_000


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_glibc", lambda: None)
    cpu.keep_freed_memory()
    cpu.give_back()
