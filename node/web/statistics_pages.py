"""How good it is here: what was decided on the findings, and how long reports took; and the same as CSV."""

import csv
from datetime import timedelta
from io import StringIO
from typing import Any

from starlette.responses import Response

from node.web import measures, scanners, wording
from node.web.requests import Asked
from storage.queries.statistics import Counted

PERIODS = {"30": "30 days", "90": "90 days", "365": "a year", "3650": "ten years"}
_DEFAULT_DAYS = "90"
_SHARES = (0.5, 0.9, 0.95, 1.0)
PLOT_WIDTH, PLOT_HEIGHT = 640, 160
_HEADER = ("judged_at", "case_id", "model", "location", "diameter_mm", "probability", "verdict", "reason")


def statistics(asked: Asked) -> Response:
    """The page."""
    days = _days(asked)
    counted = _counted(asked, days)
    target = asked.context.config.web.turnaround_target_seconds
    return asked.page(
        "statistics.html",
        periods=PERIODS,
        days=days,
        models=_models(counted),
        places=measures.by_place_and_size(counted.judged),
        sizes=measures.SIZES,
        reasons=measures.reasons(counted.judged),
        weeks=_bars(counted),
        most=max((accepted + rejected for _, accepted, rejected in measures.weeks(counted.judged)), default=0),
        turnaround=_turnaround(counted, target),
        undelivered=counted.undelivered,
        scanners=scanners.section(asked),
        plot=(PLOT_WIDTH, PLOT_HEIGHT),
    )


def scanner_picture(asked: Asked) -> Response:
    """What one scanner measured over the time, as SVG; the browser may keep it, as its address changes with it."""
    if not scanners.may_see(asked):
        return Response("Only leads and administrators see this.", 403, media_type="text/plain")
    drawn = scanners.picture(asked)
    if drawn is None:
        return Response("No case of this scanner is compared.", 404, media_type="text/plain")
    return Response(drawn, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=3600"})


def exported(asked: Asked) -> Response:
    """Every judged finding as a line of CSV; no patient is in it."""
    text = StringIO()
    lines = csv.writer(text)
    lines.writerow(_HEADER)
    for each in _counted(asked, _days(asked)).judged:
        verdict = "accepted" if each.accepted else "rejected"
        of_finding = (
            each.model,
            each.location,
            f"{each.diameter_mm:.2f}",
            f"{each.probability:.4f}",
            verdict,
            each.reason,
        )
        lines.writerow((each.judged_at.isoformat(), each.case_id, *of_finding))
    name = {"Content-Disposition": 'attachment; filename="willis-findings.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=name)


def _days(asked: Asked) -> str:
    days = asked.request.query_params.get("days", "")
    return days if days in PERIODS else _DEFAULT_DAYS


def _counted(asked: Asked, days: str) -> Counted:
    return asked.context.store.statistics.since(asked.context.clock() - timedelta(days=int(days)))


def _models(counted: Counted) -> list[dict[str, Any]]:
    """A line for each version of the model that reported or was judged."""
    lines = []
    for model in sorted({*counted.reported, *(each.model for each in counted.judged)}, reverse=True):
        of_model = measures.proportion([each for each in counted.judged if each.model == model])
        low, high = of_model.low_high
        lines.append(
            {
                "model": model,
                "ppv": of_model,
                "reported": counted.reported.get(model, 0),
                "low": low * 100,
                "width": (high - low) * 100,
                "at": of_model.accepted / of_model.of * 100 if of_model.of else None,
            }
        )
    return lines


def _bars(counted: Counted) -> list[dict[str, Any]]:
    """A bar for each week: rejected on top of accepted."""
    weeks = measures.weeks(counted.judged)
    most = max((accepted + rejected for _, accepted, rejected in weeks), default=1)
    wide = PLOT_WIDTH / max(len(weeks), 8)
    return [
        {
            "monday": f"{monday:%d %b %Y}",
            "accepted": accepted,
            "rejected": rejected,
            "x": round(number * wide + 1, 1),
            "width": round(wide - 2, 1),
            "accepted_height": round(accepted / most * PLOT_HEIGHT, 1),
            "rejected_height": round(rejected / most * PLOT_HEIGHT, 1),
        }
        for number, (monday, accepted, rejected) in enumerate(weeks)
    ]


def _turnaround(counted: Counted, target_seconds: float) -> dict[str, Any] | None:
    """Percentiles of last slice → report in the PACS beside the target, and the curve of how many were as fast."""
    if not counted.seconds:
        return None
    found = sorted(counted.seconds)
    within = measures.Proportion(sum(each <= target_seconds for each in found), len(found))
    widest = max(target_seconds * 2, 1.0)
    points = [f"0,{PLOT_HEIGHT}"]
    for number in range(1, 101):
        seconds = measures.percentile(found, number / 100)
        points.append(f"{min(seconds / widest, 1) * PLOT_WIDTH:.1f},{PLOT_HEIGHT * (1 - number / 100):.1f}")
    return {
        "percentiles": [(f"{share:.0%}", wording.seconds_text(measures.percentile(found, share))) for share in _SHARES],
        "within": within,
        "target": wording.seconds_text(target_seconds),
        "target_x": target_seconds / widest * PLOT_WIDTH,
        "widest": wording.seconds_text(widest),
        "points": " ".join(points),
    }
