"""Small networks are quickest on one thread; scripts run by tests inherit it."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
