"""What was made of a series before: where it is in the PACS, so that what comes now goes to the same place and names it."""

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from node.results.document import Predecessor
from node.runtime import log
from storage.errors import Damaged
from storage.files.instances import Files
from storage.store import Store


def predecessors(store: Store, files: Files, series_id: int) -> dict[str, Predecessor]:
    """The newest object of each kind, with its study and series as they are in its file.

    One that cannot be read is left out: what is not known is not referred to.  Raises ObjectsAway, StorageFull.
    """
    found = {}
    for kind, (uid, file) in store.queue.latest(series_id).items():
        try:
            ds = dcmread(files.here(file), specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
            found[kind] = Predecessor(str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), uid)
        except (OSError, ValueError, EOFError, AttributeError, InvalidDicomError, Damaged) as error:
            log.get().error("predecessor_unreadable", case=series_id, error=type(error).__name__)
    return found
