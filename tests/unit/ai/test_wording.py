import pytest

from ai.wording import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 slices"), (1, "1 slice"), (2, "2 slices")])
def test_a_noun_agrees_with_its_number(count: int, said: str) -> None:
    assert counted(count, "slice") == said


@pytest.mark.parametrize(("count", "said"), [(1, "1 delivery is"), (3, "3 deliveries are")])
def test_a_noun_with_a_plural_of_its_own_has_that(count: int, said: str) -> None:
    assert counted(count, "delivery is", "deliveries are") == said
