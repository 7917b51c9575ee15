"""What is shown of the patient's earlier studies."""

from typing import Any

from node.web.earlier_studies import changes, earlier_cases

MCA, ACOM = "Left Middle Cerebral Artery", "Anterior Communicating Artery"


def row(outcome: str, date: str = "20250301", model: str = "0.7.0", **sizes: float) -> dict[str, Any]:
    names = {"mca": MCA, "acom": ACOM}
    return {
        "case_id": 3, "study_date": date, "outcome": outcome, "model": model, "reason": "gap", "p_present": 0.5, "limits": "",
        "threshold": 0.65, "lesions": [{"location": names[name], "diameter_mm": mm} for name, mm in sizes.items()],
    }  # fmt: skip


def test_each_finding_is_held_against_the_latest_study_that_was_answered() -> None:
    now = row("positive", "20260301", mca=8.0, acom=3.5)
    earlier = [row("not_analysed", "20251001"), row("positive", mca=5.5, model="0.6.0"), row("positive", mca=2.0)]
    assert changes(now, earlier) == {
        1: "5.5 mm on 01 Mar 2025: + 2.5 ± 2.0 mm, more than two measurements differ by; by another version of the model",
        2: "nothing reported here on 01 Mar 2025",
    }
    assert changes(row("positive", mca=5.0), [row("positive", mca=5.5)])[1].endswith(
        "− 0.5 ± 2.0 mm, no more than two measurements differ by"
    )


def test_without_an_earlier_answer_nothing_is_said() -> None:
    assert changes(row("positive", mca=8.0), []) == {}
    assert changes(row("positive", mca=8.0), [row("not_analysed")]) == {}
    assert changes(row("negative"), [row("positive", mca=8.0)]) == {}


def test_earlier_cases_are_listed_with_what_was_found_or_why_not() -> None:
    listed = earlier_cases([row("positive", mca=5.5, acom=2.0), row("negative"), row("not_analysed")])
    [limited] = earlier_cases([row("negative") | {"limits": "noise"}])
    assert limited.finding == "No aneurysm detected, limited: noise, P 50 %, reported from 65 %"
    assert [each.finding for each in listed][:2] == [
        "L MCA 5.5 mm, ACom 2.0 mm",
        "No aneurysm detected, P 50 %, reported from 65 %",
    ]
    assert listed[2].finding.startswith("Not analysed: Slices are missing")
