"""Train the network that turns text into frames, before the WaveNet that speaks them."""

import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from common.errors import UserError
from common.run_files import SPEECH
from datasets.corpus.reader import Corpus, Split
from datasets.text.utterances import (
    UtteranceBatch,
    pitch_statistics,
    read_batch,
    shuffled_batches,
)
from models import model_file
from models.archive import read_archive
from models.speech import SpeechConfig, SpeechNetwork
from training import distributed
from training.run import Start

BATCH = 12  # recordings
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 1.5e-3, 0.01, 100
BETAS = (0.9, 0.98)
CLIP = 1.0
MEL_WEIGHT, PITCH_WEIGHT = 10.0, 0.3  # of the losses, beside the durations' 1
MOST_HELD_BACK = 200  # recordings that measure the network
COMPARISONS = 20  # with the held-back recordings, in a training
SAVE_SECONDS = 30.0  # between states on the disk


class Losses(NamedTuple):
    """mel: mean absolute difference, -100 dB to 0 dB being 2. durations: mean square of the
    difference of logarithms. pitch: mean square, in standard deviations. voiced: nats a phoneme.
    """

    mel: Any
    durations: Any
    pitch: Any
    voiced: Any

    @property
    def total(self) -> Any:
        """What is minimised."""
        return (MEL_WEIGHT * self.mel + self.durations
                + PITCH_WEIGHT * (self.pitch + self.voiced))


def losses(network: SpeechNetwork, batch: UtteranceBatch) -> Losses:
    """Compute the losses of a batch, each phoneme or frame weighing the same."""
    encoded = network.encode(batch.phonemes, batch.mask, batch.label)
    said, mask = network.prosody(encoded), batch.mask[..., 0]
    mel = network.decode(encoded, batch.pitch, batch.frames, batch.label)
    in_time = torch.arange(mel.shape[1], device=mel.device) < batch.frames.sum(1, keepdim=True)
    pitch, known = batch.pitch.unbind(2)
    durations = (said.log_frames - batch.frames.to(mel.dtype).log1p()) ** 2
    voiced = F.binary_cross_entropy_with_logits(said.voiced, known, reduction="none")
    return Losses(
        ((mel - batch.mel).abs().mean(2) * in_time).sum() / in_time.sum(),
        (durations * mask).sum() / mask.sum(),
        ((said.pitch - pitch) ** 2 * known).sum() / known.sum().clamp(min=1),
        (voiced * mask).sum() / mask.sum())


def obtain(corpus: Corpus, start: Start, updates: int) -> SpeechNetwork:
    """Return the network for the texts of a corpus, trained now if it is not there yet.

    updates: of its training. A run that is resumed has it in its snapshot or its folder.
    Raises UserError for a snapshot without one, or a damaged file.
    """
    if start.snapshot:
        if "speech" not in start.snapshot:
            raise UserError(f"--resume: {start.snapshot_path} is of a run without texts, and the "
                            "corpus has them; start a new run")
        return model_file.build_speech(start.snapshot["speech"]).to(start.device)
    assert corpus.features
    config = SpeechConfig(corpus.features.mel.width, labels=len(corpus.label_names))

    def train() -> dict[str, Any]:
        training = SpeechTraining(config, corpus.train, corpus.validation, updates, start.seed,
                                  start.device)
        return model_file.network_content(
            training.run(start.out / SPEECH, is_resumed=bool(start.settings.resume)))

    return model_file.build_speech(distributed.broadcast_from_main(train)).to(start.device)


class SpeechTraining:
    """The training of a SpeechNetwork on a corpus.

    updates: how many in all. The network that is best on the held-back recordings is kept; without
    any, the last one.
    """

    def __init__(self, config: SpeechConfig, train: Split, held_back: Split, updates: int,
                 seed: int, device: torch.device) -> None:
        self.train, self.held_back, self.updates, self.seed = train, held_back, updates, seed
        self.statistics, self.device = pitch_statistics(train), device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SpeechNetwork(config)
        self.network.set_pitch(*self.statistics)
        self.network.to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), LEARNING_RATE, BETAS,
                                           weight_decay=WEIGHT_DECAY)
        self.update = self.epoch = 0
        self.best, self.best_loss = model_file.copy_to_cpu(self.network.state_dict()), math.inf

    def run(self, path: Path, is_resumed: bool = False) -> SpeechNetwork:
        """Train to the end, and return the best network.

        path: of the file that keeps the state, and from which a resumed training continues.
        """
        if is_resumed:
            self._resume(path)
        saved = time.monotonic()
        with tqdm(total=self.updates, initial=self.update, unit="update", desc="text to frames",
                  disable=None) as bar:
            while self.update < self.updates:
                before = self.update
                measured = self._train_epoch(bar)
                if (self.update * COMPARISONS // self.updates
                        > before * COMPARISONS // self.updates):
                    self._compare()
                    bar.set_postfix(mel=f"{measured.mel:.4f}", held_back=f"{self.best_loss:.4f}")
                if self.update == self.updates or time.monotonic() - saved > SAVE_SECONDS:
                    model_file.save(path, self._state())
                    saved = time.monotonic()
        self.network.load_state_dict(self.best)
        print(f"text to frames: {sum(one.numel() for one in self.network.parameters()):,} "
              f"parameters, {self.update:,} updates, loss of held-back recordings "
              f"{self.best_loss:.4f}")
        return self.network.eval()

    def _train_epoch(self, bar: tqdm) -> Losses:
        """Train on each recording about once; return the mean losses."""
        self.network.train()
        found = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.epoch)  # of dropout
            for indices in shuffled_batches(self.train, BATCH, self.seed, self.epoch):
                if self.update == self.updates:
                    break
                found.append(self._update(indices))
                bar.update()
        self.epoch += 1
        return Losses(*np.mean(found, axis=0))

    def _update(self, indices: np.ndarray) -> list[float]:
        batch = read_batch(self.train, indices, self.statistics).to(self.device)
        found = losses(self.network, batch)
        self.optimizer.zero_grad()
        found.total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        warm_up = min(1.0, (self.update + 1) / WARM_UP)
        cosine = (1 + math.cos(math.pi * self.update / self.updates)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_up * cosine
        self.optimizer.step()
        self.update += 1
        return [float(loss.detach()) for loss in found]

    @torch.no_grad()
    def _compare(self) -> None:
        """Keep the network if it is the best so far."""
        self.network.eval()
        count = min(len(self.held_back.recordings), MOST_HELD_BACK)
        found = [losses(self.network, read_batch(self.held_back, indices, self.statistics)
                        .to(self.device))
                 for indices in np.array_split(np.arange(count), -(-count // BATCH))
                 ] if count else []
        loss = float(np.mean([float(one.total) for one in found])) if found else -self.update
        if loss < self.best_loss:
            self.best_loss, self.best = loss, model_file.copy_to_cpu(self.network.state_dict())

    def _state(self) -> dict[str, Any]:
        return {"task": self._task(), "update": self.update, "epoch": self.epoch,
                "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                "best": self.best, "best_loss": self.best_loss}

    def _task(self) -> list[int]:
        """What a state must agree in to be continued."""
        return [self.updates, self.seed, len(self.train.recordings), *self.train.shards[0].shape]

    def _resume(self, path: Path) -> None:
        """Continue from the state at `path` if it is there and of the same training."""
        if not path.is_file():
            return
        state = read_archive(path)
        try:
            if state["task"] != self._task():
                return
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.update, self.epoch = int(state["update"]), int(state["epoch"])
            self.best, self.best_loss = state["best"], float(state["best_loss"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: damaged ({error}); remove it, and the training of the "
                            "text begins again") from None
        print(f"text to frames: going on after {self.update} of {self.updates} updates",
              file=sys.stderr)
