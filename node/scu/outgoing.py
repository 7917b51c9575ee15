"""A file that is sent: what sending it needs to know of it, read once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_dataset, read_preamble

from node.audit.messages import Study
from node.errors import Refused

_WANTED = ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "AccessionNumber"]


@dataclass(frozen=True)
class Outgoing:
    """A DICOM file.  `dataset_offset`: in bytes, from its beginning, behind the file meta information."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    series_instance_uid: str
    study: Study
    dataset_offset: int

    @classmethod
    def read(cls, path: Path) -> "Outgoing":
        """The file at `path`.  Raises Refused when it is not one that can be sent, OSError when it cannot be read."""
        try:
            with path.open("rb") as file:
                read_preamble(file, force=False)
                read_dataset(
                    file,
                    is_implicit_VR=False,
                    is_little_endian=True,
                    stop_when=lambda tag, _vr, _length: tag.group != 2,
                )
                offset = file.tell()
                file.seek(0)
                ds = dcmread(file, specific_tags=_WANTED, stop_before_pixels=True)
            sop_class, instance = ds.file_meta.MediaStorageSOPClassUID, ds.get("SOPInstanceUID")
            texts = [str(ds.get(keyword) or "") for keyword in _WANTED[1:]]
            study = Study(texts[0], texts[2], texts[3])
            study.count(str(sop_class))
            return cls(
                path,
                str(sop_class),
                str(instance or ds.file_meta.MediaStorageSOPInstanceUID),
                str(ds.file_meta.TransferSyntaxUID),
                texts[1],
                study,
                offset,
            )
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):  # the disk may give it later
                raise
            raise Refused("not a DICOM file") from None

    @contextmanager
    def dataset(self) -> Iterator[BufferedReader]:
        """The file, open where its dataset begins.  Raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.dataset_offset)
            yield file
