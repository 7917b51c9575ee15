"""A person's name is one that a report can bear."""

import pytest

from node.errors import Refused
from node.web.person_names import checked_person_name, composed_person_name


@pytest.mark.parametrize(
    "name", ["Doe^Jane", " Müller^Jörg^^Dr. ", "van der Berg^Jan", "Sørensen^Æsa", "Wałęsa^Đorđe", "Weiß^Þór", ""]
)
def test_a_name_in_latin_letters_is_taken(name: str) -> None:
    assert checked_person_name(name) == name.strip()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Jane Doe", "family^given"),
        ("^Jane", "family^given"),
        ("A^B^C^D^E^F", "family^given"),
        ("Doe^Jane=Doe", "no = or backslash"),
        ("Doe^Jane\\Roe", "no = or backslash"),
        ("Doe^" + "J" * 64, "at most 64"),
        ("Doe^Ja\nne", "at most 64"),
        ("山田^太郎", "Latin letters"),
        ("Doe\uff3cRoe^Jane", "no = or backslash"),
        ("Doe\uff1dX^Jane", "no = or backslash"),
        ("\u0301^Jane", "Latin letters"),
        ("Doe^" + "°" * 20, "Latin letters"),
    ],
)
def test_what_is_none_is_refused_with_its_reason(name: str, message: str) -> None:
    with pytest.raises(Refused, match=message.replace("^", r"\^")):
        checked_person_name(name)


@pytest.mark.parametrize(
    ("whole", "family", "given", "name"),
    [
        ("Jane Doe", "", "", "Doe^Jane"),
        ("Doe, Jane", "", "", "Doe^Jane"),
        ("Jane van der Berg", "van der Berg", "Jane", "van der Berg^Jane"),
        ("  Jane  Mary Doe ", "", "", "Doe^Jane Mary"),
        ("Jane^x Doe", "", "", "Doe^Jane x"),
        ("dr.kim", "dr.kim", "", ""),
        ("", "", "", ""),
        (", Jane", "", "", ""),
        ("山田 太郎", "", "", ""),
        ("", "Doe\uff3eProf", "Jane", "Doe Prof^Jane"),
        ("A=B C", "", "", ""),
        ("J" * 60 + " Doerner", "", "", ""),
    ],
)
def test_what_a_provider_says_of_a_person_becomes_a_name_or_none(
    whole: str, family: str, given: str, name: str
) -> None:
    assert composed_person_name(whole, family, given) == name
