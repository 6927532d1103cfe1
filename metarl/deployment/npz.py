"""Read the arrays of an .npz file that may be damaged or malicious: no pickles, and a limited size."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.strict_yaml import read_file
from metarl.envs.text import shown
from metarl.errors import UsageError, describe

MOST_BYTES = 2**27
"""Largest size of a file, and of an unpacked array in it: a thousand times an episode's."""


def read_arrays(file: Path, names: Collection[str]) -> dict[str, Array]:
    """Return the arrays with these names in an .npz file, as far as it has them; no pickle is loaded.

    The sizes that the file states are compared with the bytes that it holds before an array is made. UsageError for a
    file that is damaged, too large, or not an .npz file.
    """
    try:
        data = read_file(file, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} {error}") from error
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        raise UsageError(f"{file} is a single array, not an .npz archive of fields; write it with numpy.savez")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    except Exception as error:  # a damaged archive can raise anything
        if data and not data.startswith(b"PK"):
            said = "not an .npz file, or a pickle, which is not read; write it with numpy.savez"
        else:
            said = f"cut short, damaged, or not an .npz file ({describe(error)[:100]}); log it anew"
        raise UsageError(f"{file} is {said}") from error
    return {name: _array(archive, member, name, file) for name, member in members.items() if name in names}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, file: Path) -> Array:
    """Return an array of an archive; it has at most `MOST_BYTES`, and as many numbers as its header states."""
    if member.flag_bits & 1:
        raise UsageError(f"{file}: {name} is encrypted; write it with numpy.savez")
    if member.file_size > MOST_BYTES:
        raise UsageError(
            f"{file}: {name} has {member.file_size:,} bytes unpacked; an episode has at most {MOST_BYTES:,}"
        )
    try:
        with archive.open(member) as stream:
            data = stream.read(MOST_BYTES + 1)
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # a damaged member can raise anything
        raise UsageError(f"{file}: {name} is damaged ({describe(error)[:100]}); log it anew") from error
    if dtype.hasobject:
        raise UsageError(
            f"{file}: {name} is an array of Python objects, which only a pickle can hold, and a pickle can run code; "
            "save plain numbers of one shape"
        )
    sizes = all(type(size) is int and 0 <= size <= MOST_BYTES for size in shape)  # True is an int, but not a size
    count, room = math.prod(shape), len(data) - stream.tell()
    fits = sizes and dtype.itemsize and count * dtype.itemsize == room
    if not fits:
        raise UsageError(
            f"{file}: {name} is damaged: its header says shape {shown(shape)} of {shown(str(dtype))}, it holds {room} "
            "bytes; log it anew"
        )
    values = np.frombuffer(data, dtype, count, stream.tell())
    return values.reshape(shape, order="F" if fortran else "C")
