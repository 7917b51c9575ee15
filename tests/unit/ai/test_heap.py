import pytest

from ai import heap


def test_the_heap_is_kept_until_the_last_who_asked_for_it_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(heap, "_keepers", 0)
    monkeypatch.setattr(heap, "_set", lambda trim_bytes, _most_mapped: told.append(trim_bytes))
    heap.keep()
    with pytest.raises(KeyboardInterrupt), heap.kept_heap():
        raise KeyboardInterrupt
    assert told == [heap._NEVER]
    heap.let_go()
    assert told == [heap._NEVER, heap._USUAL_TRIM_BYTES]
    with heap.kept_heap():
        assert told[2:] == [heap._NEVER]
    assert told[3:] == [heap._USUAL_TRIM_BYTES]
