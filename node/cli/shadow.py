"""`willis shadow`: how the second bundle's answers compare with the reports of the first."""

import csv
import json
import sys
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from node.cli.app import ConfigOption, JsonOption, app, console, one_line_errors, one_of, say, settings

if TYPE_CHECKING:
    from node.rules.comparison import Agreement, Comparison, Share
    from storage.queries.shadow import ShadowAnswer


@app.command(epilog="Example: willis shadow --within-mm 3")
def shadow(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a row for each report that was answered.")] = False,
    within_mm: Annotated[
        float, typer.Option(min=0.1, max=100, help="Centres of findings no farther apart than this are one finding.")
    ] = 5.0,
) -> None:
    """Compare what the second bundle ([ai] shadow) says of the same series with what was reported.

    Each pair of models has a comparison of its own, the one that answered last comes last.
    """
    with one_line_errors():
        one_of(json=as_json, csv=as_csv)
        answers = _answers(settings(config).storage.url)
        if as_csv:
            _write_csv(answers)
            return
        pairs = _pairs(answers)
        if as_json:
            found = [_as_json(key, group, within_mm) for key, group in pairs.items()]
            sys.stdout.write(json.dumps(found, indent=1) + "\n")
            return
        for key, group in pairs.items():
            _print(key, group, within_mm)
        if not pairs:
            say("nothing was compared yet: name a second bundle in [ai] shadow; it answers when no series waits")


def _answers(url: str) -> "list[ShadowAnswer]":
    """With the second bundles' names as they are now: one of that version may have reported since."""
    from storage.store import Store

    store = Store.open(url)
    name_of = cache(store.models.name_of)
    return [replace(each, model=name_of(each.model, each.bundle_sha256)) for each in store.shadows.answers()]


def _pairs(answers: "list[ShadowAnswer]") -> "dict[tuple[str, str, str], list[ShadowAnswer]]":
    """By the models' versions, and the digest of the second bundle."""
    found: dict[tuple[str, str, str], list[ShadowAnswer]] = {}
    for each in answers:
        found.setdefault((each.first_model, each.model, each.bundle_sha256), []).append(each)
    return dict(sorted(found.items(), key=lambda pair: pair[1][-1].reported_at))


def _comparison(group: "list[ShadowAnswer]", within_mm: float) -> "Comparison":
    from node.rules.comparison import Compared, compare
    from storage.stages import Outcome

    return compare(
        [
            Compared(
                each.first_present,
                each.first_notify,
                each.first_p_present,
                each.first_lesions,
                each.outcome == Outcome.POSITIVE.value,
                each.notify,
                each.p_present,
                each.lesions,
                each.verdicts,
            )
            for each in group
            if each.p_present is not None
        ],
        within_mm,
    )


def _counts(group: "list[ShadowAnswer]") -> dict[str, int]:
    """How many of the series ended how, but those that both have concluded."""
    from storage.queries.shadow import ShadowStage

    stages = {stage.value: sum(each.stage is stage for each in group) for stage in ShadowStage}
    answered = stages.pop("answered")
    return {"not_analysed": answered - sum(each.p_present is not None for each in group), **stages}


def _as_json(key: tuple[str, str, str], group: "list[ShadowAnswer]", within_mm: float) -> dict[str, Any]:
    names = dict(zip(("first_model", "second_model", "second_sha256"), key, strict=True))
    return {**names, **asdict(_comparison(group, within_mm)), "not_compared": _counts(group)}


def _write_csv(answers: "list[ShadowAnswer]") -> None:
    rows = [
        {
            name: json.dumps(value) if isinstance(value, list | tuple | dict) else value
            for name, value in (asdict(each) | {"reported_at": each.reported_at.isoformat()}).items()
        }
        for each in answers
    ]
    if rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _print(key: tuple[str, str, str], group: "list[ShadowAnswer]", within_mm: float) -> None:
    first, second, digest = key
    found = _comparison(group, within_mm)
    aside = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in _counts(group).items() if count)
    second = second if digest[:8] in second else f"{second} ({digest[:12]})"
    say(f"{first} reports, {second} answers too: {found.series} series{f'; {aside}' if aside else ''}")
    table = Table("", "Both", "Only first", "Only second", "Neither", "Cohen's kappa (95 %)")
    for name, agreement in (("present", found.report), ("notify", found.notify)):
        counts = (agreement.both, agreement.only_first, agreement.only_second, agreement.neither)
        table.add_row(name, *map(str, counts), _kappa(agreement))
    console.print(table)
    say(
        f"findings: {found.findings_first} of the first, {found.findings_second} of the second, {found.findings_matched} "
        f"of both within {found.within_mm:g} mm"
    )
    if found.difference_mean is not None:
        say(
            f"P(present), second less first: mean {found.difference_mean:+.3f}, 95 % of series from "
            f"{found.difference_low:+.3f} to {found.difference_high:+.3f}, at most {found.difference_absolute_most:.3f}"
        )
    judged = found.judged
    if not judged.accepted + judged.rejected:
        say("no finding of these was accepted or rejected yet")
        return
    say(f"accepted findings that the second has too: {_share(judged.accepted_found)}")
    say(f"rejected findings that the second has too: {_share(judged.rejected_found)}")
    say(
        f"right on judged findings: first {_share(judged.first_right)}, second {_share(judged.second_right)}; only one of them "
        f"{judged.only_first_right} and {judged.only_second_right}, McNemar's exact p = {judged.p_value:.3f}"
    )
    say("judged was only what the first reported: what the second alone finds counts for nothing here")


def _kappa(agreement: "Agreement") -> str:
    if agreement.kappa is None:
        return "not defined"
    return f"{agreement.kappa:.2f} ({agreement.kappa_low:.2f} to {agreement.kappa_high:.2f})"


def _share(share: "Share") -> str:
    return f"{share.count} of {share.of}" + (f" ({share.low:.2f} to {share.high:.2f})" if share.of else "")
