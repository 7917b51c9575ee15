"""pynetdicom's inside is compared before it is relied upon."""

import pytest
from pynetdicom.dul import DULServiceProvider

from node.errors import ConfigError
from node.net.pynetdicom_guard import RELIED_UPON, WRITTEN_FOR, check_pynetdicom, source_digest


def test_the_installed_pynetdicom_is_the_one_that_the_receive_path_was_written_for() -> None:
    check_pynetdicom()


@pytest.mark.parametrize("name", RELIED_UPON)
def test_everything_relied_upon_is_there(name: str) -> None:
    assert source_digest(name) == RELIED_UPON[name]


def test_a_changed_function_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_reactor(_self: DULServiceProvider) -> None: ...

    monkeypatch.setattr(DULServiceProvider, "run_reactor", run_reactor)
    with pytest.raises(ConfigError, match=rf"dul\.DULServiceProvider\.run_reactor.*pynetdicom=={WRITTEN_FOR}"):
        check_pynetdicom()


def test_a_missing_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(DULServiceProvider, "_decode_pdu")
    with pytest.raises(ConfigError, match=r"dul\.DULServiceProvider\._decode_pdu"):
        check_pynetdicom()


def test_a_changed_transition_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from pynetdicom import fsm

    monkeypatch.setitem(fsm.TRANSITION_TABLE, ("Evt10", "Sta6"), "AA-8")
    with pytest.raises(ConfigError, match=r"fsm\.TRANSITION_TABLE"):
        check_pynetdicom()
