"""What a run says of the machine it ran on."""

import subprocess
import sys

import pytest
from train_server import REPOSITORY

from environment import STATUS


@pytest.mark.skipif(not STATUS.is_file(), reason="not Linux")
def test_peak_memory_is_the_process_own_however_large_its_parent_is():
    code = "import torch, environment; print(environment.peak_memory(torch.device('cpu')))"
    parent = f"x = bytearray(2 << 30); import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    ended = subprocess.run([sys.executable, "-c", parent], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert 50 << 20 < int(ended.stdout) < 1 << 30, ended.stderr
