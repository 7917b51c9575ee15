"""What the images of a series show: of its one acquisition, or of each of several.

Several acquisitions in one series are analysed each, up to `MOST_ANALYSED`; of more, as in a perfusion, the one whose
arteries are filled best.  The report is on one of them, and names the others and what came of each
(docs/decisions/0010-several-acquisitions.md).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

import ai
from ai.errors import NotAnalysable, Reason
from ai.findings import Findings
from ai.frames import Frame, frames
from ai.volume import ReadSlice, Volume, volume_from_slices
from ai.wording import counted
from node.config.sections import Eligibility
from node.dicom.frame_headers import frame_headers
from node.results.other_acquisitions import answer
from node.rules.acquisitions import described, split
from node.rules.eligibility import NotEligible, ineligibility_of_one
from storage.records import Header

MOST_ANALYSED = 3
"""A multiphase angiography has three; the time limit is that of all together."""

Look = Callable[[Sequence[ReadSlice]], tuple[Findings, Volume]]
"""What is found in the slices of one acquisition, and their volume.  Raises NotAnalysable."""


@dataclass(frozen=True)
class Examined:
    """What is found, in which volume, and the images that it is found in.  `note`: on the acquisitions, where several.

    `unanalysed`: how many of them could not be analysed, in words; "" where all that are of the kind could.
    """

    findings: Findings
    volume: Volume
    datasets: Sequence[Dataset]
    note: str = ""
    unanalysed: str = ""


@dataclass(frozen=True)
class _Acquisition:
    """`place`: in the series, counted from 1."""

    place: int
    headers: Sequence[Header]
    slices: Sequence[ReadSlice]
    datasets: Sequence[Dataset]

    @property
    def words(self) -> str:
        return f"acquisition {self.place} ({described(self.headers)})"


def examine(
    headers: Sequence[Header], slices: Sequence[ReadSlice], rules: Eligibility, look: Look, threads: int = 0
) -> Examined:
    """What the CT slices of a series show.  `threads`: as `volume_from_slices` takes them.

    Raises NotAnalysable when none of its acquisitions can be analysed.
    """
    acquisitions = list(_acquisitions(headers, slices))
    if len(acquisitions) < 2:
        findings, volume = look(slices)
        return Examined(findings, volume, [each.ds for each in slices])
    ineligible = {each.place: why for each in acquisitions if (why := ineligibility_of_one(each.headers, rules))}
    eligible = [each for each in acquisitions if each.place not in ineligible]
    notes = [f"{len(acquisitions)} acquisitions in this series"]
    if len(eligible) > MOST_ANALYSED:
        best = eligible[ai.fullest(_volumes(eligible, threads))]
        notes.append(f"of {len(eligible)} only that whose arteries are filled best was analysed")
        eligible = [best]
    return _telling(eligible, look, [*notes, *_set_aside(acquisitions, ineligible)])


def _acquisitions(headers: Sequence[Header], slices: Sequence[ReadSlice]) -> Iterator[_Acquisition]:
    """Those of the series; frames of one instance may belong to several."""
    each_header: list[Header] = []
    each_frame: list[tuple[int, Frame]] = []
    for index, (header, read) in enumerate(zip(headers, slices, strict=True)):
        in_it = read.frames or tuple(frames(read.ds))
        each_header += frame_headers(header, read.ds) if header.number_of_frames > 1 else [header] * len(in_it)
        each_frame += [(index, frame) for frame in in_it]
    counts = {index: len(list(group)) for index, group in groupby(each_frame, key=lambda pair: pair[0])}
    for place, part in enumerate(split(each_header), start=1):
        mine: dict[int, list[Frame]] = {}
        for at in part:
            index, frame = each_frame[at]
            mine.setdefault(index, []).append(frame)
        whole = {index for index, chosen in mine.items() if len(chosen) == counts[index]}
        yield _Acquisition(
            place,
            [each_header[at] for at in part],
            [slices[n] if n in whole else replace(slices[n], frames=tuple(chosen)) for n, chosen in mine.items()],
            [slices[n].ds if n in whole else _with_only(slices[n].ds, chosen) for n, chosen in mine.items()],
        )


_NOT_COPIED = {Tag("PerFrameFunctionalGroupsSequence"), Tag("PixelData")}


def _with_only(ds: Dataset, chosen: Sequence[Frame]) -> Dataset:
    """The header in which only these frames have a place, so that no other is referred to."""
    numbers = {frame.number for frame in chosen}
    groups = ds.PerFrameFunctionalGroupsSequence
    header = Dataset()
    header.update({tag: ds.get_item(tag) for tag in ds.keys() - _NOT_COPIED})
    header.PerFrameFunctionalGroupsSequence = Items(
        [own if number in numbers else Dataset() for number, own in enumerate(groups, start=1)]
    )
    header.file_meta = ds.file_meta
    return header


def _volumes(acquisitions: Sequence[_Acquisition], threads: int) -> Iterator[Volume | None]:
    for each in acquisitions:
        try:
            yield volume_from_slices(each.slices, threads)
        except NotAnalysable:
            yield None


def _set_aside(acquisitions: Sequence[_Acquisition], ineligible: Mapping[int, NotEligible]) -> Iterator[str]:
    """What is said of those that are not of the kind that is analysed: of many of a kind, how many."""
    for reason in sorted({why.reason for why in ineligible.values()}):
        mine = [each for each in acquisitions if each.place in ineligible and ineligible[each.place].reason == reason]
        words = mine[0].words if len(mine) == 1 else counted(len(mine), "acquisition")
        yield f"{words}: not eligible: {reason.value}"


def _telling(acquisitions: Sequence[_Acquisition], look: Look, notes: list[str]) -> Examined:
    """The one with the highest probability of an aneurysm; what came of the others is said.  Raises NotAnalysable."""
    best: tuple[_Acquisition, Findings, Volume] | None = None
    others: list[str] = []
    failed: list[NotAnalysable] = []
    for acquisition in acquisitions:
        try:
            findings, volume = look(acquisition.slices)
        except NotAnalysable as error:
            detail = f" ({error.detail})" if error.detail else ""
            others.append(f"{acquisition.words}: not analysed: {error.reason.value}{detail}")
            failed.append(error)
            continue
        if best is None or findings.present > best[1].present:
            others += [_found(best[0], best[1])] if best else []
            best = acquisition, findings, volume
        else:
            others.append(_found(acquisition, findings))
    if best is None:
        reasons = {error.reason for error in failed}
        raise NotAnalysable(
            reasons.pop() if len(reasons) == 1 else Reason.SEVERAL_ACQUISITIONS, "; ".join([*notes, *others])
        )
    acquisition, findings, volume = best
    note = "; ".join([notes[0], f"this result is of {acquisition.words}", *notes[1:], *others])
    unanalysed = f"{len(failed)} of {counted(len(acquisitions), 'acquisition')}" if failed else ""
    return Examined(findings, volume, acquisition.datasets, note, unanalysed)


def _found(acquisition: _Acquisition, findings: Findings) -> str:
    return f"{acquisition.words}: {answer(findings)}"
