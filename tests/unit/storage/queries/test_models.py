"""How bundles are called, on both databases."""

from storage.store import Store


def test_two_bundles_of_one_version_have_two_names_and_keep_them(store: Store) -> None:
    first, second = "a" * 64, "b" * 64
    assert store.models.take_name("0.6.0", first) == "0.6.0"
    assert store.models.take_name("0.6.0", second) == "0.6.0 (bbbbbbbb)"
    assert store.models.take_name("0.7.0", second) == "0.7.0"
    for name in (store.models.take_name, store.models.name_of):
        assert [name("0.6.0", each) for each in (second, first)] == ["0.6.0 (bbbbbbbb)", "0.6.0"]


def test_a_bundle_that_was_looked_up_and_has_reported_nothing_takes_no_name(store: Store) -> None:
    assert store.models.name_of("0.6.0", "a" * 64) == "0.6.0"
    assert store.models.take_name("0.6.0", "b" * 64) == "0.6.0"
    assert store.models.name_of("0.6.0", "a" * 64) == "0.6.0 (aaaaaaaa)"
