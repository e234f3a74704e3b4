"""Small networks are quickest on one thread; scripts run by tests inherit it."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import pytest

from sampling.draws import choose


@pytest.fixture
def record_logits(monkeypatch):
    """A function of a sampler's module: a list that the logits of all it draws are added to."""
    def record(module):
        seen = []

        def recording(logits, uniforms, temperature):
            seen.append(logits.clone())
            return choose(logits, uniforms, temperature)

        monkeypatch.setattr(module, "choose", recording)
        return seen

    return record
