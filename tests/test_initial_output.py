"""What a WaveNet's last layer and its linear prediction begin with."""

import math

import torch

from models.distributions import nll
from models.wavenet import WaveNet, WaveNetConfig
from training.initial_output import best_prediction, errors_of_prediction


def tone(radians, levels=65536, count=2000):
    return (torch.sin(radians * torch.arange(count)) * 0.8 * levels / 2 + levels / 2).round().long()


def test_two_samples_predict_a_tone():
    for radians in (0.05, 0.8, 2.5):
        found = best_prediction([tone(radians)[:900], tone(radians)[900:]], 65536)
        torch.testing.assert_close(found, torch.tensor([-1.0, 2 * math.cos(radians)]),
                                   rtol=0, atol=0.02)
        model = WaveNet(WaveNetConfig(65536, 4, 4, 1, 3, distribution="logistics", mixtures=3,
                                      prediction=True))
        model.prediction.copy_(found)
        errors, = errors_of_prediction(model, [tone(radians)])
        assert len(errors) == 1998 and (errors - 32768).abs().max() < 20


def test_silence_and_short_sounds_have_a_prediction():
    silence = torch.full((100,), 32768)
    for sounds in ([silence], [silence[:2]], []):
        assert best_prediction(sounds, 65536).abs().max() <= 1


def test_a_tone_is_likely_from_the_beginning(tmp_path):
    from datasets.batches import Batch
    from training.initial_output import fit_output

    class Windows:
        def __len__(self):
            return 5

        def __getitem__(self, indices):
            codes = torch.stack([tone(0.3)[n * 300:n * 300 + 300] for n in indices])
            return Batch(codes, codes, None)

    bits = []
    for prediction in (False, True):
        torch.manual_seed(0)
        model = WaveNet(WaveNetConfig(65536, 4, 4, 1, 3, distribution="logistics", mixtures=5,
                                      prediction=prediction))
        fit_output(model, Windows())
        codes = tone(0.3)[None]
        outputs = model(codes[:, :-1])
        bits.append(nll(model.distribution, outputs, codes[:, -outputs.shape[2]:], "mean").item()
                    / math.log(2))
    assert bits[1] < bits[0] - 5
