"""The zip archives that ``torch.save`` writes, checked before anything is loaded from them.

torch neither compares the checksums of an archive nor limits what it declares. Python's ``zipfile`` reads every record
once here, so that a damaged bit anywhere in the weights or the optimizer's state is found.
"""

import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from .errors import ContentError, damaged, refused, shown

# Far above real checkpoints (a large detector has 5000 tensors with its optimizer), far below what exhausts a machine.
_MOST_RECORDS = 100_000
_LARGEST_DIRECTORY = 32 * 2**20
LARGEST_PICKLE = 512 * 2**20  # the log histories of long trainings of mmengine take hundreds of megabytes
_CHUNK = 2**22


@dataclass(frozen=True)
class Archive:
    """The pickle of an archive and the sizes in bytes of its storages, by key."""

    pickle: bytes
    storages: dict[str, int]
    has_checksums: bool


def is_archive(file: BinaryIO) -> bool:
    """Return whether a file begins as a zip archive; ``torch.load`` decides the same way."""
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    return start == b'PK\x03\x04'


def read_archive(file: BinaryIO) -> Archive:
    """Check the directory and the checksums of an archive and read its pickle.

    Raises:
        ContentError: The archive is damaged, or declares what ``torch.save`` does not write.
    """
    size = file.seek(0, 2)
    _check_directory(file, size)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            prefix = _check_records(records, size)
            # torch.serialization.set_crc32_options(False) writes zeros.
            has_checksums = any(record.CRC for record in records)
            if has_checksums:
                for record in records:
                    _check_sum(archive, record)
            storages = {
                record.filename.removeprefix(f'{prefix}/data/'): record.file_size
                for record in records
                if record.filename.startswith(f'{prefix}/data/')
            }
            return Archive(_read_pickle(file, archive, prefix), storages, has_checksums)
    except zipfile.BadZipFile as error:
        raise damaged(error) from error


def _check_directory(file: BinaryIO, size: int) -> None:
    """Compare the size and number of the records with what a checkpoint has, before ``zipfile`` reads all of them."""
    file.seek(max(size - 42, 0))
    tail = file.read()
    if len(tail) < 22 or tail[-22:-18] != b'PK\x05\x06':
        raise damaged('the file is incomplete: its archive has no end')
    count, length = struct.unpack('<HI', tail[-12:-6])
    if tail[:4] == b'PK\x06\x07':  # archives of 4 GiB and those of torch have a second end with larger numbers
        file.seek(struct.unpack('<Q', tail[8:16])[0])
        end = file.read(56)
        if len(end) < 56 or end[:4] != b'PK\x06\x06':
            raise damaged('its archive has no valid end')
        count, length = struct.unpack('<32xQQ8x', end)
    if count > _MOST_RECORDS or length > _LARGEST_DIRECTORY:
        raise refused(f'its archive has {count} records')


def _check_records(records: list[zipfile.ZipInfo], size: int) -> str:
    """Return the directory that all records are in."""
    names = {record.filename for record in records}
    prefix = records[0].filename.partition('/')[0] if records else ''
    if f'{prefix}/data.pkl' not in names:
        raise damaged('an archive without data.pkl')
    if f'{prefix}/constants.pkl' in names:
        raise refused('it is a TorchScript program; save the weights alone: torch.save(dict(state_dict=...), FILE)')
    if len(names) < len(records) or not all(name.startswith(f'{prefix}/') for name in names):
        raise refused('its archive has records of the same name or outside its directory')
    records = sorted(records, key=lambda record: record.header_offset)
    if records[0].header_offset != 0:
        raise refused('its archive does not begin with a record')
    end = 0
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise refused(f'record {shown(record.filename)} is compressed, which torch.save does not do')
        if record.header_offset < end:
            raise refused(f'record {shown(record.filename)} overlaps another')
        end = record.header_offset + 30 + record.file_size
        if end > size:
            raise damaged(f'record {shown(record.filename)} declares {record.file_size} bytes, more than the file has')
    return prefix


def _check_sum(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    try:
        with archive.open(record) as opened:
            while opened.read(_CHUNK):
                pass
    except zipfile.BadZipFile as error:
        # Its message holds the name as it is in the file.
        raise ContentError(
            f'is damaged: record {shown(record.filename)} does not have its checksum; copy or download the file again'
        ) from error


def _read_pickle(file: BinaryIO, archive: zipfile.ZipFile, prefix: str) -> bytes:
    record = archive.getinfo(f'{prefix}/data.pkl')
    if record.file_size > LARGEST_PICKLE:
        raise refused(f'its pickle has {record.file_size} bytes')
    # Without the comparison of checksums, which an archive may lack.
    file.seek(record.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b'PK\x03\x04':
        raise damaged('data.pkl has no header')
    name, extra = struct.unpack('<HH', header[26:])
    file.seek(record.header_offset + 30 + name + extra)
    return file.read(record.file_size)
