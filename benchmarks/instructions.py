"""Restrict a benchmark to the instructions of an older processor: the option --instructions.

The libraries that compute read environment variables when they are loaded, each its own: numba for
the compiled kernels, oneDNN and MKL for the matrix products and convolutions, and torch for the
rest. So the script restarts itself with these variables. A processor with AVX-512 then measures
what one with AVX2 runs, apart from the clock and the caches.

On an AMD Zen 4, MKL's matrix product, the yardstick of the benchmarks, was as fast with any of the
values. So shares of it are comparable there, but "sse" understates what SSE reaches.
"""

import argparse
import os
import platform
import sys

from llvmlite import binding

from common.errors import UserError

# The features that each set of instructions lacks, by the beginning of LLVM's names for them.
_AFTER_AVX2 = "avx512", "avx10", "amx", "gfni"
_AFTER_SSE = "avx", "amx", "gfni", "f16c", "fma", "xop", "vaes", "vpclmulqdq"
RESTRICTIONS = {
    "avx2": ({"NUMBA_CPU_NAME": "haswell", "ONEDNN_MAX_CPU_ISA": "AVX2",
              "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}, _AFTER_AVX2),
    "sse": ({"NUMBA_CPU_NAME": "nehalem", "ONEDNN_MAX_CPU_ISA": "SSE41",
             "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ATEN_CPU_CAPABILITY": "default"}, _AFTER_SSE),
}


def add_instructions_option(parser: argparse.ArgumentParser) -> None:
    """Add --instructions to a benchmark's command line."""
    parser.add_argument("--instructions", choices=["native", *RESTRICTIONS], default="native",
                        help="use no later ones than these: AVX2 of 2013 or SSE 4.2 of 2008; "
                             "native uses all that the processor has (default)")


def restart_with(instructions: str) -> None:
    """Replace this process by the same command with restricted instructions, unless it has them.

    instructions: native or a key of RESTRICTIONS. Raises UserError on a processor that isn't x86.
    """
    variables = environment(instructions)
    if any(os.environ.get(name) != value for name, value in variables.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | variables)


def environment(instructions: str) -> dict[str, str]:
    """The environment variables that restrict the libraries to `instructions`; {} for native."""
    if instructions == "native":
        return {}
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise UserError(f"--instructions {instructions}: this is no x86 processor, leave it out")
    variables, lacking = RESTRICTIONS[instructions]
    features = binding.get_host_cpu_features()
    kept = {name: has and not name.startswith(lacking) for name, has in features.items()}
    return variables | {"NUMBA_CPU_FEATURES": ",".join(
        f"{'+' if has else '-'}{name}" for name, has in sorted(kept.items()))}
