"""What a recording is conditioned on: the folder it lies in, or its speaker."""

import re

from datasets.errors import UserError

KINDS = ("folder", "speaker", "none")
SPOKEN_DIGIT = re.compile(r"\d_([^\W\d_]\w*?)_\d+")  # DIGIT_SPEAKER_TAKE
SHOWN = 20  # label names in an error message


def label_of(path, root, kind):
    """The label of the recording at `path`, found under `root`; None for the kind 'none'.

    folder: the name of the folder it lies in, which for files in `root` itself is root's own.
    speaker: from the file name: 0_george_12 is george; everywhere else the speaker comes first, as
    in VCTK (p225_001, p225_001_mic1) and LibriSpeech (1034-121119-0000).
    """
    if kind == "none":
        return None
    if kind == "folder":
        # Only the root is resolved ('.' has no name): elsewhere a link's own name is the label.
        return root.resolve().name if path.parent == root else path.parent.name
    digit = SPOKEN_DIGIT.fullmatch(path.stem)
    return digit[1] if digit else re.split("[_-]", path.stem)[0] or path.stem


def find_label(names, wanted):
    """The index in `names` of the label that --label names, by its name or by its number.

    Raises UserError where there is no such label.
    """
    if not names:
        raise UserError(f"--label {wanted}: the model was trained without labels; leave it out")
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names[:SHOWN]))
    more = f", … {len(names) - 1} {names[-1]}" if len(names) > SHOWN else ""
    raise UserError(f"--label {wanted}: no such label; give a number or a name of: {known}{more}")
