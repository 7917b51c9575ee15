"""An evaluation's report: `report.json` for programs and one self-contained `report.html` for people."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ai.decode import Calibration
from ai.preprocess import Region
from training import report_plots
from training.cases import Case, Scored, case
from training.config import ConfigError
from training.figures import Figures, figures
from training.files import write_whole
from training.report_pictures import Worst, picture, worst_cases

PHANTOM = "Phantom figures: synthetic scans only. They say nothing about patients. Research use; not a medical device."

View = Callable[[int], Region]


@dataclass(frozen=True)
class Goal:
    """A figure to reach: where it is in the figures, and the bound that it must not cross."""

    sentence: str
    path: tuple[str, ...]
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)


FEWEST_OF_A_KIND = 30
"""With fewer scans with, or without, an aneurysm a goal is neither met nor missed: one scan decides it."""
GOALS = (
    Goal('AUC of "aneurysm present"', ("auc_present",), least=0.97),
    Goal("mean AUC of the locations", ("auc_locations",), least=0.97),
    Goal(
        "sensitivity at 0.5 false positives a scan, ≥ 4 mm",
        ("by_size", "from_4mm", "at_half_a_false_positive"),
        least=0.95,
    ),
    Goal(
        "sensitivity at 0.5 false positives a scan, 3–4 mm",
        ("by_size", "3_to_4mm", "at_half_a_false_positive"),
        least=0.8,
    ),
    Goal("specificity at the shipped threshold", ("at_threshold", "specificity"), least=0.95),
    Goal("median centre error in mm", ("localisation", "median_centre_error_mm"), most=1.0),
    Goal("median absolute diameter error in mm", ("localisation", "median_absolute_diameter_error_mm"), most=0.8),
    Goal("competition score minus the baseline's", ("baseline", "difference"), least=0.2),
)


@dataclass(frozen=True)
class Subject:
    """What was evaluated: its name, on what, how its scores become probabilities, and what it reports from."""

    model: str
    scans: str
    calibration: Calibration = field(default_factory=Calibration)
    threshold: float = 0.5


def write_report(
    folder: Path, subject: Subject, scored: Sequence[Scored], view: View | None = None, baseline: Path | None = None
) -> Figures:
    """Write both files and return the figures.

    `view`: where the pictures of the worst cases come from.  `baseline`: the `report.json` of a method to be compared
    with.  Raises ConfigError when that cannot be used, or no scan was analysed.
    """
    cases = [case(one, subject.calibration, subject.threshold) for one in scored if not one.reason]
    if not cases:
        raise ConfigError(f"none of {len(scored)} scans could be analysed: {scored[0].reason} and so on")
    found: Figures = {
        "notice": PHANTOM,
        "model": subject.model,
        "data": subject.scans,
        **figures(cases, subject.threshold),
        "not_analysed": [
            {"seed": one.seed, "reason": one.reason, "positive": bool(one.lesions)} for one in scored if one.reason
        ],
    }
    if baseline is not None:
        found["baseline"] = _compared(found, baseline)
    found["goals"] = [
        {
            "goal": goal.sentence,
            "least": goal.least,
            "most": goal.most,
            "measured": value,
            **_judged(goal, value, found),
        }
        for goal in GOALS
        if (value := _at(found, goal.path)) is not None and math.isfinite(value)
    ]
    worst = worst_cases(cases, subject.threshold)
    found["worst_cases"] = [{"kind": one.kind, "seed": one.seed, "caption": one.caption} for one in worst]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.json", json.dumps(_finite(found), indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "report.html", html(found, cases, worst, view))
    return found


def _judged(goal: Goal, value: float, found: Figures) -> Figures:
    """Whether the goal is met, None where there are too few scans to say so, and that in words."""
    few = min(found["positive_scans"], found["scans"] - found["positive_scans"])
    if few < FEWEST_OF_A_KIND:
        return {
            "met": None,
            "verdict": f"not judged: {few} scans of a kind, {FEWEST_OF_A_KIND} with and without are needed",
        }
    met = goal.met(value)
    return {"met": met, "verdict": "met" if met else "missed"}


def html(found: Figures, cases: Sequence[Case], worst: Sequence[Worst], view: View | None) -> str:
    """The report as one page that needs no other file."""
    counted = (
        f"{found['data']}: {found['scans']} analysed, {found['positive_scans']} of them with an aneurysm, "
        f"{found['confounded_scans']} with confounders; {len(found['not_analysed'])} not analysed."
    )
    parts = [
        f"<h1>{escape(found['model'])}</h1><p class=notice>{escape(PHANTOM)}</p><p>{escape(counted)}</p>",
        _goals(found),
        _chief(found),
    ]
    for title, plot in report_plots.plots(found, cases).items():
        parts.append(_image(plot, title))
    parts.append(_table("AUC by column", ("column", "AUC"), [(name, value) for name, value in found["auc"].items()]))
    if "by_size" in found:
        for topic, title in (("by_size", "Lesions by diameter"), ("by_location", "Lesions by location")):
            rows = [
                (name.replace("_", " "), row["lesions"], row["at_threshold"], row["at_half_a_false_positive"])
                for name, row in found[topic].items()
            ]
            parts.append(
                _table(title, ("", "lesions", "found at threshold", "found at 0.5 false positives a scan"), rows)
            )
    else:
        parts.append(
            "<p>This method gives 14 probabilities and says nothing about where: there is no FROC, no sensitivity by size "
            "or location, and no centre or diameter to compare.</p>"
        )
    parts.append(_confounders(found))
    if found["not_analysed"]:
        unread = [
            (one["seed"], one["reason"], "aneurysm" if one["positive"] else "none") for one in found["not_analysed"]
        ]
        parts.append(_table("Not analysed, and in no figure above", ("seed", "reason", "truth"), unread))
    parts.append("<h2>Worst cases</h2>")
    for one in worst:
        parts.append(f"<h3>{escape(one.caption)}</h3>")
        if view is not None and one.centre_lps_mm is not None:
            parts.append(_image(picture(view(one.seed), one), one.caption))
    return _PAGE.format(title=escape(found["model"]), body="\n".join(parts))


_PAGE = """<!doctype html>
<html lang=en><meta charset=utf-8><title>{title}: evaluation</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }}
.notice {{ background: #fff3cd; padding: .6em 1em; border-left: 4px solid #e0a800 }}
table {{ border-collapse: collapse; margin: .5em 0 1.5em }}
td, th {{ padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }}
td:first-child, th:first-child {{ text-align: left }}
.missed {{ color: #b00020 }} .met {{ color: #1b6e3c }} img {{ max-width: 100% }}
</style>
{body}
</html>
"""


def _goals(found: Figures) -> str:
    rows = []
    for goal in found["goals"]:
        wanted = f"≥ {goal['least']:g}" if goal["least"] is not None else f"≤ {goal['most']:g}"
        met = f"<span class={'met' if goal['met'] else 'missed'}>{escape(goal['verdict'])}</span>"
        rows.append((goal["goal"], wanted, goal["measured"], met))
    return _table("Goals, on phantoms", ("", "goal", "measured", ""), rows)


def _chief(found: Figures) -> str:
    called, intervals = found["at_threshold"], found["intervals_95"]
    named: dict[str, tuple[float, str]] = {
        "competition score": (found["competition_score"], "competition_score"),
        'AUC of "aneurysm present"': (found["auc_present"], "auc_present"),
        "mean AUC of the locations": (found["auc_locations"], "auc_locations"),
        f"sensitivity at the threshold {found['threshold']:g}": (called["sensitivity"], "sensitivity"),
        "specificity": (called["specificity"], "specificity"),
        f"PPV at {100 * called['prevalence']:g} % prevalence": (called["ppv"], ""),
        f"NPV at {100 * called['prevalence']:g} % prevalence": (called["npv"], ""),
        "Brier score": (found["calibration"]["brier"], ""),
        "expected calibration error": (found["calibration"]["ece"], ""),
    }
    if "froc" in found:
        placed = found["localisation"]
        named |= {
            "false positives a scan at the threshold": (called["false_positives_per_scan"], ""),
            "CPM": (found["froc"]["cpm"], "cpm"),
            "median centre error in mm": (placed["median_centre_error_mm"], ""),
            "median absolute diameter error in mm": (placed["median_absolute_diameter_error_mm"], ""),
            "diameter bias in mm (found − true)": (placed["diameter_bias_mm"], ""),
            "named after the right location": (placed["right_location"], ""),
        }
        for rate, value in zip(found["froc"]["false_positives_per_scan"], found["froc"]["sensitivity"], strict=True):
            named[f"lesion sensitivity at {rate:g} false positives a scan"] = (value, f"sensitivity_at_{rate:g}")
    if "baseline" in found:
        named["competition score minus the baseline's"] = (found["baseline"]["difference"], "")
    rows = [(name, value, _interval(intervals.get(key))) for name, (value, key) in named.items()]
    return _table("Figures", ("", "measured", "95 % interval over scans"), rows)


def _confounders(found: Figures) -> str:
    rows = [
        (
            name,
            row["scans"],
            row.get("false_positives", ""),
            row.get("false_positives_per_scan", ""),
            row["negatives_called_positive"],
        )
        for name, row in found["confounders"].items()
    ]
    headings = ("", "scans", "false positives", "false positives a scan", "negative scans called positive")
    return _table("False positives by confounder", headings, rows)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{_text_of(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>"


def _text_of(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else "–"
    return value if str(value).startswith("<span") else escape(str(value))


def _interval(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""


def _image(png: bytes, caption: str) -> str:
    return f'<p><img alt="{escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'


def _compared(found: Figures, baseline: Path) -> Figures:
    try:
        other = json.loads(baseline.read_text(encoding="utf-8"))
        score, model, scans = float(other["competition_score"]), str(other["model"]), int(other["scans"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{baseline} is not a report.json of an evaluation: write one with --out first") from error
    if (scans, other.get("positive_scans")) != (found["scans"], found["positive_scans"]):
        raise ConfigError(f"{baseline} is of {scans} scans and this is of {found['scans']}: evaluate both on the same")
    return {"model": model, "competition_score": score, "difference": found["competition_score"] - score}


def _at(found: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = found
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return float(value)


def _finite(value: Any) -> Any:
    """The value with null for what is not a number: JSON has no nan."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
