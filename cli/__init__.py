"""What the scripts share. Imported before torch, whose threads it tells how long to wait.

After each operation, torch's OpenMP threads spin for 3 ms in case another one follows. Compiled
layers have threads of their own, which then share their cores with the spinning ones: a step of a
small PixelCNN took a quarter longer, one of a WaveNet a tenth. In bfloat16 torch computes most
layers itself, and is 7 % faster if its threads spin.
"""

import os
import sys

if "bf16" not in sys.argv:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # about 20 microseconds
