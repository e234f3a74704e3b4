"""Types and bounds of the fields in model files and snapshots, checked when a file is read.

The bounds lie far beyond what anybody trains. They ensure that nothing built from a file takes much
more memory than the file itself. Unknown fields are ignored, except where a description forbids
them. See `common.headers`.
"""

from typing import Annotated, Any, Literal

import torch
from msgspec import UNSET, Meta, Struct, UnsetType, field

from models.speech import SpeechConfig

Count = Annotated[int, Meta(ge=0, le=2 ** 53)]
# Runs on several processes wrote these counts as floats once.
FloatCount = Annotated[float, Meta(ge=0, le=2 ** 53)]
Seed = Annotated[int, Meta(ge=0, le=2 ** 63 - 1)]
Number = Annotated[float, Meta(ge=-1e300, le=1e300)]  # finite
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
Side = Annotated[int, Meta(ge=1, le=65_535)]  # of a picture, in pixels
Rate = Annotated[int, Meta(ge=1, le=768_000)]  # Hz
MOST_PIXELS = 2 ** 26  # of an image
MOST_MEL = 2 ** 28  # numbers in the triangles of a mel spectrum
OPTIMIZERS = Literal["Adam", "SGD", "RMSprop", "Muon"]


# ------------------------------------------------------------------------------ model files

class Parts(Struct):
    """The parts of every model file. The kind of network describes `config` and `data` further."""

    config: dict[str, Any]
    label_names: list[Annotated[str, Meta(max_length=10_000)]]
    data: dict[str, Any]
    weights: dict[str, torch.Tensor]


class ImageData(Struct):
    """`data` of a PixelCNN: the images of its training."""

    levels: Annotated[int, Meta(ge=2, le=256)]
    channels: Literal[1, 3]
    height: Side
    width: Side
    dataset: str = ""
    binarize: Literal["threshold", "sampled"] = "threshold"

    def __post_init__(self):
        if self.height * self.width > MOST_PIXELS:
            raise ValueError(f"{self.height} x {self.width} pixels are too many")


class FeatureData(Struct, forbid_unknown_fields=True):
    """`data.features` of a WaveNet, as in `datasets.audio.features.Features`."""

    kind: Literal["mel", "npy"]
    width: Annotated[int, Meta(ge=1, le=2 ** 16)]
    hop: Annotated[int, Meta(ge=1, le=2 ** 20)]
    rate: Rate
    window: Annotated[int, Meta(ge=0, le=2 ** 20)] = 0
    floor: Annotated[float, Meta(ge=0, lt=1)] = 0.0

    def __post_init__(self):
        if self.kind == "mel" and not (self.hop <= self.window and self.floor
                                       and self.width * self.window <= MOST_MEL):
            raise ValueError("window and floor don't fit mel frames of that width and hop")


class SoundData(Struct):
    """`data` of a WaveNet: the sound of its training."""

    levels: Annotated[int, Meta(ge=2, le=65_536)]
    rate: Rate
    features: FeatureData | None = None
    encoding: Literal["mulaw", "linear"] = "mulaw"


class Speech(Struct, forbid_unknown_fields=True):
    """`speech` of a WaveNet that speaks texts."""

    config: SpeechConfig
    weights: dict[str, torch.Tensor]


DATA = {"pixelcnn": ImageData, "wavenet": SoundData}


# ------------------------------------------------------------------------------ snapshots

class Interval(Struct, forbid_unknown_fields=True):
    """The sums of a reporting interval, as in `training.interval.Interval`."""

    nll: Number = 0.0
    targets: FloatCount = 0
    samples: FloatCount = 0
    seconds: Seconds = 0.0


class Entry(Struct):
    """An entry of the log, as in `training.extensions.log_report.LogReport`."""

    iteration: Count
    epoch: Count | UnsetType = UNSET
    nll: Number | UnsetType = field(name="main/nll", default=UNSET)
    elapsed_time: Seconds | UnsetType = UNSET
    samples_per_second: Number | UnsetType = UNSET
    resumed_at: Count | UnsetType = UNSET
    restart: Count | UnsetType = UNSET

    def __post_init__(self):
        if self.iteration and self.nll is UNSET:
            raise ValueError("lacks main/nll")


# The other values of an entry. msgspec can't describe such a union any closer.
Values = list[dict[str, Annotated[int, Meta(ge=-2 ** 63, le=2 ** 63 - 1)] | Number | bool | str
                   | None]]


class ParameterGroup(Struct):
    """A group of the optimizer's parameters. Its settings come from the resumed run's flags."""

    params: list[Count]


class OptimizerState(Struct):
    """`state_dict()` of a torch optimizer. `models.contents` compares `state` with the weights."""

    state: dict[Count, dict[str, Any]]
    param_groups: Annotated[list[ParameterGroup], Meta(min_length=1, max_length=1)]


Moment = tuple[Count, Seconds]  # see `common.moments.Moment`


class BestState(Struct):
    """State of BestModel. `file` is a bare name, because it is joined to the run's folder."""

    nll: Annotated[float, Meta(ge=0)]  # inf before there is a best one
    compared: Count
    file: Annotated[str, Meta(pattern=r"^(pixelcnn|wavenet)_[0-9]{1,18}\Z")] | None


class PrintState(Struct):
    """State of `training.extensions.print_report.PrintReport`."""

    printed: Count


class BoardState(Struct):
    """State of `training.extensions.tensorboard.TensorBoardReport`."""

    entries: Count
    names: list[str]


class SnapshotState(Struct):
    """State of Snapshot. removable: numbers of the snapshots that may be deleted."""

    last: Moment
    last_to_stay: Moment
    removable: list[Count]


class SamplesState(Struct):
    """State of `training.extensions.samples.Samples`."""

    last: Moment


class Extensions(Struct):
    """States of the extensions in a snapshot, by their `name`."""

    best: BestState | UnsetType = field(name="BestModel", default=UNSET)
    printed: PrintState | UnsetType = field(name="PrintReport", default=UNSET)
    board: BoardState | UnsetType = field(name="TensorBoardReport", default=UNSET)
    snapshot: SnapshotState | UnsetType = field(name="Snapshot", default=UNSET)
    samples: SamplesState | UnsetType = field(name="Samples", default=UNSET)

    def iterations(self) -> list[int]:
        """List all updates that these states call done."""
        found = []
        if self.best:
            found.append(self.best.compared)
        if self.printed:
            found.append(self.printed.printed)
        if self.snapshot:
            found += [self.snapshot.last[0], self.snapshot.last_to_stay[0],
                      *self.snapshot.removable]
        if self.samples:
            found.append(self.samples.last[0])
        return found


class Run(Struct):
    """`run` of a snapshot: the state of a `training.trainer.Trainer`."""

    iteration: Count
    epoch: Count
    position: Count
    items: Annotated[int, Meta(ge=1, le=2 ** 53)]
    seed: Seed
    elapsed_time: Seconds
    interval: Interval
    log: list[Entry]
    optimizer: OptimizerState
    extensions: Extensions
    optimizer_name: OPTIMIZERS = "Adam"
    has_ended: bool = False
    weights: dict[str, torch.Tensor] | UnsetType = UNSET

    def __post_init__(self):
        if self.position >= self.items:
            raise ValueError(f"position {self.position} is beyond the {self.items} items")
        if self.epoch > self.iteration:
            raise ValueError(f"epoch {self.epoch} is beyond iteration {self.iteration}")
        logged = [entry.iteration for entry in self.log]
        if logged != sorted(logged):
            raise ValueError("log: its iterations don't rise")
        if max([*logged, *self.extensions.iterations()], default=0) > self.iteration:
            raise ValueError(f"names an iteration beyond its own, {self.iteration}")
        if self.extensions.board and self.extensions.board.entries > len(self.log):
            raise ValueError("extensions.TensorBoardReport.entries: more than in the log")
