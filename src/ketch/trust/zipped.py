"""Zip archives and the arrays in them, unpacked in memory within bounds, and packed to the same bytes at any time."""

import io
import zipfile
import zlib
from collections.abc import Mapping

from ketch.extras import load
from ketch.trust import Fault, sibling

MOST_MEMBERS = 1_000_000
DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, KeyError)


def unpack(data: bytes, room: int | None = None) -> dict[str, bytes]:
    """Return the members of an archive, within `room` or the bound that holds for compressed pickles.

    Raises:
        Fault: it is damaged, opens to too much, or is not written plainly.
    """
    inflate = sibling("inflate")
    most = room if room is not None else min(inflate.LARGEST, max(inflate.ROOMY, inflate.RATIO * len(data)))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = archive.infolist()
            if sum(info.file_size for info in listed) > most or len(listed) > MOST_MEMBERS:
                raise Fault(f"it opens to more than {most >> 20} MiB")
            if len({info.filename for info in listed}) < len(listed):
                raise Fault("it holds two parts of one name")
            if any(info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for info in listed):
                raise Fault("it is compressed in an unusual way: save it again with skops.io.dump(model, file)")
            return {info.filename: archive.read(info) for info in listed}
    except DAMAGE:
        raise Fault("its zip archive is damaged") from None


def pack(members: Mapping[str, bytes]) -> bytes:
    """Return an archive of the members, without compression; the same members give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # the same bytes whatever system writes them
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return out.getvalue()


def tidied(data: bytes) -> bytes:
    """Write a saved array of records anew, with zeros between their fields, where memory of whoever saved it stands."""
    numpy, stream = load("numpy"), io.BytesIO()
    array = numpy.load(io.BytesIO(data), allow_pickle=False)
    made = numpy.zeros(array.shape, array.dtype)
    for name in array.dtype.names or ():
        made[name] = array[name]
    numpy.save(stream, made, allow_pickle=False)
    return stream.getvalue()


def header(data: bytes) -> dict[str, object]:
    """Return what the header of a saved array says; its numbers must be just the rest of the bytes.

    Raises:
        Fault: it is no array of plain numbers or texts, or of another size.
    """
    stream, headers = io.BytesIO(data), load("numpy.lib.format")
    try:
        read = {(1, 0): headers.read_array_header_1_0, (2, 0): headers.read_array_header_2_0}
        shape, _, dtype = read[headers.read_magic(stream)](stream)
    except Exception:  # it evaluates a literal, which may go wrong in many ways
        raise Fault("it is damaged: an array has no header") from None
    count = 1
    for side in shape:
        count *= side
    if dtype.hasobject or min(shape, default=0) < 0 or count * dtype.itemsize != len(data) - stream.tell():
        raise Fault("it is damaged: an array is not as large as it says")
    return {"array": True, "object": False, "shape": shape, "kind": dtype.kind, "count": count}
