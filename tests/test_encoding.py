import errno
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from threadpoolctl import threadpool_info, threadpool_limits

from common.errors import UserError
from datasets.audio import encoding
from datasets.audio import recordings as audio
from datasets.audio.encoding import EncodingConfig, encode_recording, encode_recordings
from datasets.audio.labels import Labelling
from datasets.audio.recordings import split_silence
from datasets.quantization import code_dtype, mu_law_encode

RATE = 8000


def config_for(folder, levels=256, threshold=0.0):
    return EncodingConfig(Labelling(folder, ("none", )), RATE, levels, silence_threshold=threshold)


def bursts(seed, rate=RATE, seconds=3.0, channels=1):
    """Noise that is loud, beyond full scale or almost silent for random times."""
    generator = np.random.default_rng(seed)
    samples = generator.uniform(-1, 1, (round(rate * seconds), channels))
    for begin in range(0, len(samples), 700):
        samples[begin:begin + 700] *= generator.choice([0.003, 0.003, 0.3, 6])
    return samples.astype(np.float32)


def kept_of(samples, threshold):
    """Cut the silent frames at the ends of a whole recording."""
    size = round(audio.SILENCE_FRAME * RATE)
    heard = [begin for begin in range(0, len(samples), size)
             if np.sqrt(np.sum(np.square(samples[begin:begin + size], dtype=float)) / size)
             >= threshold]
    return samples[heard[0]:heard[-1] + size] if heard else samples[:0]


@pytest.mark.parametrize("block", [63, 777, 1 << 17])
@pytest.mark.parametrize("rate, channels", [(RATE, 1), (44100, 2), (4000, 3)])
@pytest.mark.parametrize("threshold, levels", [(0, 256), (0.1, 256), (0.1, 1024)])
def test_block_by_block_encoding_equals_encoding_the_whole_array(tmp_path, monkeypatch, block, rate,
                                                          channels, threshold, levels):
    if block == 63:
        monkeypatch.setattr(audio, "SILENCE_FRAME", 0.0125)  # frames of 100 samples, blocks shorter
    path, place = tmp_path / "x.wav", tmp_path / "codes"
    samples = bursts(block, rate, channels=channels)
    samples[:rate // 3] *= 0.001
    soundfile.write(path, samples, rate, subtype="FLOAT")
    whole = samples.mean(axis=1)
    if rate != RATE:
        whole = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ").resample_chunk(
            whole, last=True)
    kept = kept_of(whole, threshold) if threshold else whole
    assert bool(threshold) == (0 < len(kept) < len(whole))
    monkeypatch.setattr(audio, "BLOCK_FRAMES", block)
    recording = encode_recording(path, config_for(tmp_path, levels, threshold), place)
    codes, clipped = mu_law_encode(kept, levels)
    assert place.read_bytes() == codes.tobytes()
    assert clipped > 100 and recording[:5] == (str(place), None, len(codes), clipped,
                                               len(whole) - len(kept))
    assert recording.loudness == pytest.approx(np.sqrt(np.mean(np.square(kept, dtype=float))))
    assert codes.dtype == code_dtype(levels) and recording.problem is None


@pytest.mark.parametrize("seed", range(40))
def test_silence_does_not_depend_on_block_sizes(seed):
    generator = np.random.default_rng(seed)
    samples = bursts(seed, seconds=generator.uniform(0, 0.5))[:, 0]
    cuts = np.sort(generator.integers(0, len(samples) + 1, generator.integers(0, 9)))
    pieces = [*split_silence(np.split(samples, cuts), RATE, 0.1)]
    assert (np.concatenate([samples[:0], *(piece for piece, _ in pieces)]) == samples).all()
    heard = [number for number, (_, is_heard) in enumerate(pieces) if is_heard]
    between = pieces[heard[0]:heard[-1] + 1] if heard else []
    kept = np.concatenate([samples[:0], *(piece for piece, _ in between)])
    assert np.array_equal(kept, kept_of(samples, 0.1))


def test_unusable_recordings_leave_no_codes(tmp_path):
    late = bursts(0)[:, 0]
    late[-1] = np.nan
    for name, samples, threshold, told in (("late", late, 0, "NaN"), ("empty", late[:0], 0, "no s"),
                                           ("quiet", late[:9], 9, "below --silence_threshold 9")):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
        recording = encode_recording(tmp_path / f"{name}.wav",
                                     config_for(tmp_path, threshold=threshold), tmp_path / "codes")
        assert f"{name}.wav: " in recording.problem and told in recording.problem
        assert not (tmp_path / "codes").exists() and recording.codes is None


def test_a_recording_of_one_sample(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.full(1, 0.25), RATE)
    for threshold in (0, 0.01):
        recording = encode_recording(tmp_path / "x.wav", config_for(tmp_path, threshold=threshold),
                           tmp_path / "codes")
        assert (recording.length, recording.loudness) == (1, 0.25)
        assert (tmp_path / "codes").read_bytes() == bytes(mu_law_encode([0.25], 256)[0])


def die(*_):
    os._exit(1)


def test_a_worker_that_dies_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(encoding, "encode_recording", die)
    with pytest.raises(UserError, match="workers 2: a process died"):
        list(encode_recordings([Path("x.wav")] * 20, None, 2, tmp_path))


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_not_reported_as_a_bad_recording(monkeypatch, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(9), RATE)
    monkeypatch.setattr(encoding, "encode_sound", full)
    with pytest.raises(OSError, match="No space left"):
        list(encode_recordings([tmp_path / "x.wav"] * 3, config_for(tmp_path), 2, tmp_path))


def wait_a_minute(path, config, place):
    place.write_bytes(str(os.getpid()).encode())
    time.sleep(60)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("interrupted", [True, False])
def test_workers_exit_with_their_parent(monkeypatch, tmp_path, interrupted):
    monkeypatch.setattr(encoding, "encode_recording", wait_a_minute)
    parent = os.fork()
    if not parent:
        def stop(*_):
            raise KeyboardInterrupt
        encoding.signal.signal(encoding.signal.SIGINT, stop)
        try:
            list(encode_recordings([Path("x.wav")] * 9, None, 2, tmp_path))
        finally:
            os._exit(0)
    began = time.monotonic()
    while not all((tmp_path / name).exists() and (tmp_path / name).read_bytes() for name in "01"):
        assert time.monotonic() - began < 20
        time.sleep(0.01)
    workers = [int((tmp_path / name).read_bytes()) for name in "01"]
    os.kill(parent, encoding.signal.SIGINT if interrupted else encoding.signal.SIGKILL)
    os.waitpid(parent, 0)
    while any(map(is_running, workers)):
        assert time.monotonic() - began < 20
        time.sleep(0.01)


def threads_of_products():
    return {library["num_threads"] for library in threadpool_info()
            if library["user_api"] == "blas"}


def test_a_worker_computes_matrix_products_in_one_thread():
    """With one thread per core, two workers took longer for mel spectra than one."""
    end, told_to_end = Pipe()
    with threadpool_limits(2), ProcessPoolExecutor(1, initializer=encoding._begin_worker,
                                                   initargs=(told_to_end,)) as pool:
        assert threads_of_products() == {2}
        assert pool.submit(threads_of_products).result() == {1}
    end.close()
