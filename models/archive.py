"""Read files that torch.save wrote, if they are undamaged and hold only tensors and plain values.

torch.save writes a zip with a checksum of each member, which torch.load ignores. This module checks
them, and that no tensor claims more bytes than the file stores. So reading a file never takes much
more memory than its own size.
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
    """Read the content of the file `path`, with tensors on the CPU.

    Raises UserError for a file that is missing, damaged, or holds anything but tensors and plain
    values, because reading that could run code.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no file; name a model file")
        with open(path, "rb") as file:
            sizes = _check_members(path, file)
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
    except Exception:  # torch.load raises exceptions of many types for bytes that are no model
        raise UserError(f"{path}: is no model file, or a truncated one; use another snapshot of "
                        f"the run") from None
    _check_tensors(path, content, sizes)
    return content


def _check_members(path, file):
    """Check the checksums of the zip's members, and return the members' sizes in bytes."""
    size = path.stat().st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        sizes = [member.file_size for member in members]
        compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if compressed or sum(sizes) > size:
            raise UserError(f"{path}: is compressed, or says to be larger than it is; use the file "
                            f"that our training wrote")
        damaged = archive.testzip()
    if damaged:
        raise UserError(f"{path}: damaged ({damaged} is not what was written); {ADVICE}")
    return sizes


def _check_tensors(path, content, sizes):
    """Refuse tensors that claim more bytes than the file stores, or hold no plain numbers.

    content: of the file. sizes: of the zip's members, in bytes.
    """
    storages, total, seen, left = {}, 0, set(), [content]
    while left:  # no recursion, because the file decides how deeply its values are nested
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
    # Before about 2.9, torch trusts the size that a tensor claims.
    too_large = Counter(size for size in storages.values() if size) - Counter(sizes)
    if too_large or total > sum(storages.values()):
        raise UserError(f"{path}: damaged (says to hold larger tensors than it does); {ADVICE}")
