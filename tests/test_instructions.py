"""benchmarks/instructions.py: what --instructions leaves of the processor."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import instructions

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"),
                                reason="needs an x86 processor")
SCRIPT = """
import sys
import torch
from benchmarks.instructions import restart_with
restart_with(sys.argv[1])
from models.kernels.vectors import FEATURES
print(torch.backends.cpu.get_cpu_capability(), FEATURES)
"""


@pytest.mark.parametrize("name, capability", [("avx2", "AVX2"), ("sse", "DEFAULT")])
def test_the_script_restarts_once_with_restricted_libraries(name, capability, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run([sys.executable, script, name], capture_output=True, text=True, check=True,
                         env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    found, features = run.stdout.split()
    assert found == capability
    assert "+avx512" not in features
    assert ("+avx2" in features) == (name == "avx2")


def test_native_changes_nothing(monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("restarted"))
    instructions.restart_with("native")


def test_all_variables_restrict_to_the_same_instructions():
    avx2, sse = map(instructions.environment, instructions.RESTRICTIONS)
    assert avx2.keys() == sse.keys()
    kept = [{feature for feature in variables["NUMBA_CPU_FEATURES"].split(",") if feature[0] == "+"}
            for variables in (avx2, sse)]
    assert kept[1] < kept[0]
    assert not any("avx" in feature or "fma" in feature for feature in kept[1])
