"""`python -m tests.soak --hours 2 --to FOLDER`: a hospital's day in two hours, and what is lost, doubled or grows by it.

A whole node (supervisor, receiver, worker, pages; SQLite; real sockets) gets small angiographies, broken off, repeated and
late ones, other modalities, echoes, queries and requests for commitment, while its processes are killed, the PACS is away,
refuses, aborts, is slow or does not commit, the mail server is away, and another program locks the database.  What stands in
for something: the network of the analysis (`tests.corpus.network`), the PACS and the mail server.  Otherwise than in a
shipped node, CPython's table of interned strings is laid out anew soon, and not at some time (`tests.soak.stub_node`).
The hours of the day pass faster, by 24 over `--hours`; the node's own clocks do not.

FOLDER has at the end: result.json, samples.jsonl, sent.json, soak.png, and the node with its log.  Status 1: something is lost, doubled
or grows.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

from storage.files.instances import Files
from tests.soak.load import Load
from tests.soak.picture import draw
from tests.soak.proof import Verdict, verdict, waiting
from tests.soak.site import DAY, Planned, SoakSite
from tests.soak.watch import Watch, growths
from tests.support.running import wait_until

LAST_STUDY_HOUR = 23.7
DRAIN_SECONDS = 900.0


def soak(
    folder: Path, hours: float, seconds_between: float, seed: int, day: Sequence[Planned] = DAY, with_pages: bool = True
) -> dict[str, Any]:
    """The day has passed; returns what is in result.json."""
    (folder / "node").mkdir(parents=True)
    site = SoakSite(folder / "node", with_pages)
    hour, began = hours * 3600 / 24, time.monotonic()
    load = Load(site.node.address, site.modality, seconds_between, seed)
    watch = Watch(folder / "samples.jsonl", site.processes, max(0.5, min(10.0, hour / 10)), began)
    happening = Thread(target=_day, args=(site, day, hour, began), daemon=True)
    try:
        load.start()
        happening.start()
        minute = 0
        while (at := time.monotonic() - began) < LAST_STUDY_HOUR * hour or happening.is_alive():
            watch.look()
            if at >= 60 * minute:
                minute += 1
                print(_progress(site, load, watch, at, at / hour), flush=True)
            time.sleep(min(1.0, hour / 10))
        load.stop()
        drained = _drain(site, watch)
        watch.look()
        found = verdict(
            site.node.store,
            Files(site.node.config.storage.directory),
            load.sent,
            site.node.pacs.folder,
            site.mailbox.texts(),
            site.results,
        )
        processor = watch.processor_seconds() / (time.monotonic() - began)
        result = _result(site, load, watch, found, hours, seed, processor) | {"drained": drained}
    finally:
        site.close()
    (folder / "sent.json").write_text(json.dumps({"acknowledged": load.sent.acknowledged}) + "\n", "utf-8")
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    draw(folder / "soak.png", watch.samples, site.happened, hour)
    return result


def _day(site: SoakSite, day: Sequence[Planned], hour: float, began: float) -> None:
    for planned in day:
        time.sleep(max(0.0, planned.hour * hour - (time.monotonic() - began)))
        site.happen(planned, planned.minutes / 60 * hour, began)


def _drain(site: SoakSite, watch: Watch) -> bool:
    """Whether nothing is under way any longer."""

    def is_over() -> bool:
        watch.look()
        return not any(waiting(site.node.store).values())

    try:
        return bool(wait_until(is_over, DRAIN_SECONDS, "nothing is under way"))
    except AssertionError:
        return False


def _progress(site: SoakSite, load: Load, watch: Watch, at: float, hour: float) -> str:
    sent, still = load.sent, waiting(site.node.store)
    memory = {each.role: f"{each.memory_mib:.0f}" for each in watch.samples[-8:]}
    return (
        f"{at / 60:5.1f} min, hour {hour:4.1f}: {len(sent.acknowledged)} instances, {len(sent.series)} series, under way "
        f"{still}, kills {sum(site.kills.values())}, MiB {memory}, processor {watch.processor_seconds() / max(at, 1):.2f}"
    )


def _result(
    site: SoakSite, load: Load, watch: Watch, found: Verdict, hours: float, seed: int, processor: float
) -> dict[str, Any]:
    growing = growths(watch.samples)
    return {
        "hours": hours, "seed": seed, "lost": found.lost, "doubled": found.doubled, "counts": found.counts,
        "done": dict(load.sent.done),
        "kills": dict(site.kills), "happened": [asdict(each) for each in site.happened],
        "growth": [{**asdict(each), "per_hour": each.per_hour, "grows": each.grows} for each in growing], "processor_cores": processor,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The result, as Markdown."""
    lines = [
        "| what | count |",
        "|---|---|",
        f"| lost | {len(result['lost'])} |",
        f"| doubled | {len(result['doubled'])} |",
    ]
    lines += [f"| {name} | {count} |" for name, count in result["counts"].items()]
    lines += [f"| {name.replace('_', ' ')} (by senders) | {count} |" for name, count in sorted(result["done"].items())]
    lines += [f"| kill -9 of {name} | {count} |" for name, count in sorted(result["kills"].items())]
    lines += [f"| processor, cores | {result['processor_cores']:.2f} |", ""]
    lines += ["| process | measure | hours judged | median | change (95 %) | in an hour | grows |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for each in result["growth"]:
        interval = f"{each['change']:+.2f} ({each['low']:+.2f} to {each['high']:+.2f})"
        lines.append(
            f"| {each['role']} | {each['measure']} | {each['hours']:.2f} | {each['middle']:.1f} | {interval} | "
            f"{each['per_hour']:+.2f} | {'yes' if each['grows'] else 'no'} |"
        )
    return "\n".join([*lines, "", *result["lost"][:20], *result["doubled"][:20]])


def is_good(result: dict[str, Any]) -> bool:
    """Whether nothing is lost, nothing doubled, and nothing grows."""
    return bool(
        result["drained"]
        and not (result["lost"] or result["doubled"] or any(each["grows"] for each in result["growth"]))
    )


def main() -> int:
    """Prints progress each minute and the table at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="real hours that the day takes")
    parser.add_argument(
        "--seconds-between", type=float, default=4.0, help="between the beginnings of two studies, on average"
    )
    parser.add_argument("--seed", type=int, default=0, help="0: drawn")
    parser.add_argument(
        "--to", type=Path, default=Path("var/soak"), help="folder for the results; must not be there yet"
    )
    options = parser.parse_args()
    seed = options.seed or Random().randrange(1 << 30)
    print(f"seed {seed}, {options.hours:g} h, into {options.to}", flush=True)
    result = soak(options.to.absolute(), options.hours, options.seconds_between, seed)
    print(table(result), flush=True)
    return 0 if is_good(result) else 1


if __name__ == "__main__":
    sys.exit(main())
