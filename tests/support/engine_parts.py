"""A scheduler or a worker of the engine in processes of its own, and its configuration; nothing here imports torch."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.support.certificates import Certificates
from tests.support.running import ROOT, wait_until


class Part:
    """`willis scheduler` or `willis worker`, with the configuration in its folder."""

    def __init__(
        self, command: str, folder: Path, module: str, arguments: Sequence[str] = (), **environment: str
    ) -> None:
        """It does not run yet."""
        self.command, self.folder, self.module, self.arguments = command, folder, module, arguments
        self.log = folder / f"{command}.log"
        self._environment = {"WILLIS_TEST_HOLD": str(folder / "hold"), "WILLIS_CONFIG": str(folder / "config.toml")}
        self._environment |= environment
        self.process: subprocess.Popen[bytes]

    @property
    def hold(self) -> Path:
        """While this file is there, its network waits, if `module` is one whose does."""
        return self.folder / "hold"

    def held_by(self, seconds: float = 20) -> int:
        """The process that waits for the file to go."""
        said = self.hold.with_suffix(".pid")
        pid = int(wait_until(lambda: said.exists() and said.read_text(), seconds, "a task has begun"))
        said.unlink()
        return pid

    def start(self) -> Self:
        """It was started."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, self.command, *self.arguments], cwd=ROOT, env={**os.environ, **self._environment},
                stdout=log, stderr=log,
            )  # fmt: skip
        return self

    def children(self) -> list[int]:
        """The processes that it started."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> None:
        """It and what it started have ended."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self._kill()

    def _kill(self) -> None:
        for pid in (*self.children(), self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def settings(folder: Path, address: str, certificates: Certificates, who: str = "node", **of_ai: Any) -> dict[str, Any]:
    """The configuration of a part of the engine, as `who`."""
    named = {"certificate": certificates.folder / f"{who}.pem", "key": certificates.folder / f"{who}.key"}
    engine = {"engine": "dask", "engine_address": address, "engine_tls": named | {"ca": certificates.folder / "ca.pem"}}
    bundle = {"bundle": folder / "bundle"} if (folder / "bundle").exists() else {}
    return {"storage": {"directory": folder / "files"}, "ai": {**bundle, **engine, **of_ai}}


def as_toml(values: dict[str, Any], name: str = "") -> str:
    """Tables of strings and paths."""
    plain = [f"{key} = {str(value)!r}" for key, value in values.items() if not isinstance(value, dict)]
    tables = [as_toml(value, f"{name}.{key}".strip(".")) for key, value in values.items() if isinstance(value, dict)]
    return "\n".join([*([f"[{name}]"] if name else []), *plain, *tables])
