"""Reading what torch.save wrote: whole, as written, and nothing but tensors and plain values.

torch.save writes a zip with a checksum of each part, which torch.load does not look at. Here they
are, and that no part is larger than what is stored of it: so a file is never read into more memory
than its own size, whatever it says.
"""

import math
import pickle
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError

ADVICE = "use another snapshot of the run, or copy the file again"


def read_archive(path: Path) -> Any:
    """The content of the file `path`, its tensors on the CPU.

    Raises UserError for a file that is not there, is damaged, or holds anything else, which could
    run code when read.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no file; name a model file")
        with open(path, "rb") as file:
            sizes = _checked_parts(path, file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such model file; train one first") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); name a model file") from None
    except pickle.UnpicklingError:
        raise UserError(f"{path}: holds something other than tensors and plain values, and is not "
                        f"read since it could run code; use a file that our training "
                        f"wrote") from None
    except Exception:  # of bytes that are no model, torch.load raises whatever it comes to
        raise UserError(f"{path}: is no model file, or a truncated one; use another snapshot of "
                        f"the run") from None
    _check_tensors(path, content, sizes)
    return content


def _checked_parts(path, file):
    """The sizes in bytes of the zip's parts, each of which is as it was written."""
    size = path.stat().st_size
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        sizes = [part.file_size for part in parts]
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(sizes) > size:
            raise UserError(f"{path}: is compressed, or says to be larger than it is; use the file "
                            f"that our training wrote")
        damaged = archive.testzip()
    if damaged:
        raise UserError(f"{path}: damaged ({damaged} is not what was written); {ADVICE}")
    return sizes


def _check_tensors(path, content, sizes):
    """Refuse tensors that are larger than what is stored of them, or not of plain numbers.

    content: of the file, any plain values. sizes: of the parts of the file, in bytes.
    """
    storages, total, seen, left = {}, 0, set(), [content]
    while left:  # not by recursion: the file says how deep it is
        value = left.pop()
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise UserError(f"{path}: damaged (holds a tensor without plain numbers); {ADVICE}")
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            total += math.prod(value.shape) * value.element_size()
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            left += [*value.keys(), *value.values()] if isinstance(value, dict) else value
    # Releases of torch before 2.9 or so take a tensor's size from what it says of itself.
    beyond = Counter(size for size in storages.values() if size) - Counter(sizes)
    if beyond or total > sum(storages.values()):
        raise UserError(f"{path}: damaged (says to hold larger tensors than it does); {ADVICE}")
