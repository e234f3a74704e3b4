"""Small networks are quickest on one thread; scripts run by tests inherit it."""

import os
import signal
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
import pytest
import torch

from cli.script import run_script
from models.distributions import Logistics, Softmax
from models.distributions.softmax import sample_categorical
from models.model_file import model_content, save
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.random_streams import RandomStreams


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels():
    """Compile the samplers before any test: the first use on a machine says so on stderr."""
    generator = torch.random.get_rng_state()
    sound = WaveNet(WaveNetConfig(levels=2, hidden_dim=1, out_hidden_dim=1, stacks_num=1,
                                  layers_num=1))
    image = PixelCNN(PixelCNNConfig(hidden_dim=1, out_hidden_dim=1, blocks_num=1))
    torch.random.set_rng_state(generator)
    for precision in ("fp32", "bf16"):
        list(wavenet.sample_sounds(sound, RandomStreams(0, [0]), None, 1, precision=precision))
    pixelcnn.sample_images(image, RandomStreams(0, [0]), None, 1, 1)
    Logistics(2, 1).nll(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))


@pytest.fixture(autouse=True)
def _ctrl_c_obeyed():
    """By a test and its processes, though pytest may run in the background, where it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _threads_restored():
    """Whatever number of threads a test sets torch to."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_hanging(request):
    """Fail a test that takes longer than its module's HANG_SECONDS."""
    def stop(*_):
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(request.module.HANG_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def record_logits(monkeypatch):
    """A function that returns a list, which collects the logits of every code of a softmax."""
    def record():
        seen = []

        def recording(self, logits, uniforms, temperature, top_p=1.0):
            seen.append(logits.clone())
            return sample_categorical(logits, uniforms, temperature, top_p)

        monkeypatch.setattr(Softmax, "sample", recording)
        return seen

    return record


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with tiny models: `grey` without labels, `colour` and `sound` with."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    grey = PixelCNN(PixelCNNConfig(levels=4, hidden_dim=4, out_hidden_dim=4, blocks_num=2))
    save(folder / "grey", model_content("pixelcnn", grey, [], dict(
        dataset="mnist", levels=4, channels=1, height=12, width=10, binarize="threshold")))
    colour = PixelCNN(PixelCNNConfig(levels=8, channels=3, hidden_dim=6, out_hidden_dim=6,
                                     blocks_num=2, labels=3))
    with torch.no_grad():
        for block in colour.blocks:
            block.horizontal_gate.condition.weight.mul_(20)
    save(folder / "colour", model_content("pixelcnn", colour, ["cat", "dog", "fox"], dict(
        dataset="cifar", levels=8, channels=3, height=8, width=8, binarize="threshold")))
    sound = WaveNet(WaveNetConfig(hidden_dim=8, out_hidden_dim=8, stacks_num=2, layers_num=3,
                                  labels=2))
    save(folder / "sound", model_content("wavenet", sound, ["p225", "a/b c"],
                                    dict(levels=256, rate=8000)))
    run = folder / "run"
    run.mkdir()
    for number in (3, 12):
        (run / f"pixelcnn_{number}").write_bytes((folder / "grey").read_bytes())
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with the data that `forks.PIXELCNN` and `forks.WAVENET` train on."""
    from forks import write_data  # here: it imports much that other tests have no need of
    folder = tmp_path_factory.mktemp("world")
    write_data(folder)
    return folder


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Run a script's main in this process and an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(script, *args):
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, args)])
        with pytest.raises(SystemExit) as end:
            run_script(script.main)
        return end.value.code, *capsys.readouterr()

    return run
