"""What a disk may hold after power loss: a process's system calls, recorded by strace, replayed without what was not flushed.

A write survives for certain once its file was flushed (fsync, fdatasync) after it; a name once its folder was.  Whatever was
not flushed may survive or not, each write and each name by itself: a `Choice` decides.  SQLite's files are recorded and
replayed like all others, except the shared memory beside its log, which SQLite makes anew after a crash.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.raw_scu import parse_command

TRACED = (
    "open,openat,creat,close,write,pwrite64,sendto,recvfrom,fsync,fdatasync,ftruncate,link,linkat,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_END = re.compile(r"\) += (-?\d+)(?:<[^>]*>)?(?: .*)?$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"(-?\d+|AT_FDCWD)(?:<([^>]*)>)?")


def strace(output: Path, flushes_take_seconds: float = 0.0) -> list[str]:
    """The command before the one to record: all its threads, whole buffers, in hexadecimal.

    Its files' flushes take so much longer, so that what others do meanwhile comes before their end.
    """
    return [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-I2",  # a signal that ends strace ends the command, too
        "-y",
        "-xx",
        "-s",
        "4000000",
        "-e",
        f"trace={TRACED}",
        "-e",
        "signal=none",
        "-e",
        f"inject=fsync:delay_enter={round(flushes_take_seconds * 1e6)}",
        "-o",
        str(output),
    ]


@dataclass
class Call:
    """A system call that succeeded."""

    name: str
    fd: int
    texts: list[bytes]
    numbers: list[int]
    flags: str
    result: int = -1


Step = tuple[bool, Call]
"""Whether the call begins here, or ends."""


def steps_of(trace: Path) -> list[Step]:
    """Beginnings and ends of all successful calls, in order, whichever thread made them."""
    open_calls: dict[str, tuple[int, str]] = {}
    steps: list[Step | None] = []
    for line in trace.read_text("latin-1").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        pid, resumed, name, rest = match.groups()
        if resumed:
            begin, text = open_calls.pop(pid)
            name, rest = resumed, text + rest
        else:
            begin = len(steps)
            steps.append(None)
            if rest.endswith("<unfinished ...>"):
                open_calls[pid] = begin, rest.removesuffix("<unfinished ...>").rstrip()
                continue
        end = _END.search(rest)
        if end is None or int(end[1]) < 0:
            continue
        call = _call(name, rest[: end.start()], int(end[1]))
        steps[begin] = True, call
        steps.append((False, call))
    return [step for step in steps if step is not None]


def _call(name: str, arguments: str, result: int) -> Call:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
    bare = _TEXT.sub("", arguments)
    fd = _FD.match(bare)
    number = int(fd[1]) if fd and fd[1] != "AT_FDCWD" else -1
    numbers = [int(part) for part in re.findall(r"(?<=, )(\d+)(?=,|$)", bare)]
    return Call(name, number, texts, numbers, bare, result)


def acknowledged(step: Step) -> str | None:
    """The SOP Instance UID that a C-STORE response with success names, as soon as it may be on its way."""
    begins, call = step
    if (
        not begins
        or call.name != "sendto"
        or not call.texts
        or call.texts[0][:1] != b"\x04"
        or not call.texts[0][11] & 1
    ):
        return None
    command = parse_command(call.texts[0][12:])
    is_success = command[0x0100] == b"\x01\x80" and command[0x0900] == b"\0\0"
    return command[0x1000].rstrip(b"\0").decode() if is_success else None


@dataclass
class Inode:
    """A file or a folder: what was done to it, and how much of that is flushed."""

    is_folder: bool = False
    content: bytes = b""
    done: list[tuple[int, bytes] | tuple[str, "Inode | None"]] = field(default_factory=list)
    flushed: int = 0


Choice = Callable[[str, bool], bool]
"""Whether something that was not flushed survives: of which name, and whether it is a name rather than content."""


class Disk:
    """The files under one folder, step by step."""

    def __init__(self, before: Path, root: Path) -> None:
        """What lies under `before` is durable, and is what lay under `root` before the first step."""
        self._root = str(root)
        self.tree = self._read(before)
        self._open: dict[int, Inode] = {}
        self._flushing: dict[int, tuple[Inode, int]] = {}

    def _read(self, path: Path) -> Inode:
        if path.is_dir():
            inode = Inode(True)
            inode.done = [(child.name, self._read(child)) for child in path.iterdir()]
            inode.flushed = len(inode.done)
            return inode
        return Inode(content=path.read_bytes())

    def _entries(self, folder: Inode) -> dict[str, Inode]:
        found: dict[str, Inode] = {}
        for name, inode in folder.done:
            assert isinstance(name, str)
            if isinstance(inode, Inode):
                found[name] = inode
            else:
                found.pop(name, None)
        return found

    def _at(self, path: bytes) -> tuple[Inode, str] | None:
        """Folder and name; None outside of ours."""
        text = path.decode()
        if not text.startswith(self._root + "/"):
            return None
        *folders, name = text[len(self._root) + 1 :].split("/")
        inode = self.tree
        for folder in folders:
            inode = self._entries(inode)[folder]
        return inode, name

    def _get(self, path: bytes) -> Inode | None:
        if path.decode() == self._root:
            return self.tree
        place = self._at(path)
        return self._entries(place[0]).get(place[1]) if place else None

    def apply(self, step: Step) -> bool:
        """The step was taken; whether anything of ours changed."""
        begins, call = step
        if call.name in ("fsync", "fdatasync"):
            return self._flush(begins, call)
        if call.name == "close":
            if begins:
                self._open.pop(call.fd, None)
            return False
        if begins or call.name in ("sendto", "recvfrom"):
            return False
        if call.name in ("open", "openat", "creat"):
            return self._opened(call)
        if call.name in ("write", "pwrite64", "ftruncate"):
            return self._written(call)
        return self._named(call)

    def _flush(self, begins: bool, call: Call) -> bool:
        """What was done before the flush began is durable when it has ended."""
        if begins:
            if inode := self._open.get(call.fd):
                self._flushing[id(call)] = inode, len(inode.done)
            return False
        inode, upto = self._flushing.pop(id(call), (None, 0))
        if inode is None:
            return False
        inode.flushed = max(inode.flushed, upto)
        return True

    def _opened(self, call: Call) -> bool:
        place, known = self._at(call.texts[0]), self._get(call.texts[0])
        if place is None and known is None:
            return False
        created = known is None
        if known is None:
            assert place is not None
            known = Inode()
            place[0].done.append((place[1], known))
        elif "O_TRUNC" in call.flags:
            known.done.append((-1, b""))
        self._open[call.result] = known
        return created

    def _written(self, call: Call) -> bool:
        inode = self._open.get(call.fd)
        if inode is None:
            return False
        if call.name == "ftruncate":
            inode.done.append((-1 - call.numbers[-1], b""))
        elif call.name == "pwrite64":
            inode.done.append((call.numbers[-1], call.texts[0][: call.result]))
        else:  # each of our files is written from its beginning to its end
            at = sum(len(data) for _, data in inode.done if isinstance(data, bytes))
            inode.done.append((at, call.texts[0][: call.result]))
        return True

    def _named(self, call: Call) -> bool:
        places = [self._at(text) for text in call.texts]
        if not places or None in places:
            return False
        folder, name = places[-1] or (self.tree, "")
        if call.name.startswith("mkdir"):
            folder.done.append((name, Inode(True)))
        elif call.name.startswith("unlink"):
            folder.done.append((name, None))
        else:
            old_folder, old_name = places[0] or (self.tree, "")
            folder.done.append((name, self._entries(old_folder)[old_name]))
            if call.name.startswith("rename"):
                old_folder.done.append((old_name, None))
        return True

    def after_power_loss(self, survives: Choice) -> dict[str, bytes | None]:
        """Every path that is left, with its content, None for a folder."""
        return dict(self._left(self.tree, "", survives, {}))

    def _left(
        self, folder: Inode, prefix: str, survives: Choice, seen: dict[int, bytes]
    ) -> Iterator[tuple[str, bytes | None]]:
        entries: dict[str, Inode] = {}
        for index, (name, inode) in enumerate(folder.done):
            assert isinstance(name, str)
            if index >= folder.flushed and not survives(prefix + name, True):
                continue
            if isinstance(inode, Inode):
                entries[name] = inode
            else:
                entries.pop(name, None)
        for name, inode in sorted(entries.items()):
            path = prefix + name
            if inode.is_folder:
                yield path, None
                yield from self._left(inode, path + "/", survives, seen)
            elif not name.endswith("-shm"):
                if id(inode) not in seen:
                    seen[id(inode)] = _content(inode, path, survives)
                yield path, seen[id(inode)]


def _content(inode: Inode, path: str, survives: Choice) -> bytes:
    content = bytearray(inode.content)
    for index, (at, data) in enumerate(inode.done):
        assert isinstance(at, int) and isinstance(data, bytes)
        if index >= inode.flushed and not survives(path, False):
            continue
        if at < 0:
            content = content[: -1 - at].ljust(-1 - at, b"\0")
        else:
            content = content.ljust(at, b"\0")
            content[at : at + len(data)] = data
    return bytes(content)


def without_flushes(steps: Sequence[Step], of: Callable[[str], bool]) -> list[Step]:
    """The same process, had it not flushed what `of` says by its path."""
    return [step for step in steps if step[1].name not in ("fsync", "fdatasync") or not of(_path_of(step[1]))]


def renamed_to(steps: Sequence[Step], part: str) -> set[str]:
    """The former names of the files whose new names have `part` in them."""
    renamed = [call.texts for begins, call in steps if not begins and call.name.startswith("rename")]
    return {old.decode() for old, new in renamed if part in new.decode()}


def _path_of(call: Call) -> str:
    match = _FD.match(call.flags)
    path = match[2] if match and match[2] else ""
    return re.sub(r"\\x([0-9a-f]{2})", lambda pair: chr(int(pair[1], 16)), path)
