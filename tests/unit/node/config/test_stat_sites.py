"""The sites whose series come first."""

from pathlib import Path

from tests.support.config_files import complaint, loaded

PACS = '[peers.PACS]\nae_title = "PACS"\nhost = "10.0.0.7"\nport = 104\n'


def test_a_stat_site_has_to_be_one_that_may_send(tmp_path: Path) -> None:
    stat = '[ai]\nstat_calling_ae = ["PACS", "ED_CT"]\n'
    assert complaint(tmp_path, stat + PACS) == (
        "config.toml: [ai] stat_calling_ae = 'ED_CT' may not send here, so none of its series would ever come first; write an "
        "AE title of [peers.NAME] or [node] allowed_calling_ae: PACS"
    )
    assert loaded(tmp_path, stat).ai.stat_calling_ae == ("PACS", "ED_CT"), "where everybody may"
    allowed = '[node]\nallowed_calling_ae = ["ED_CT"]\n'
    assert loaded(tmp_path, allowed + stat + PACS).ai.stat_calling_ae == ("PACS", "ED_CT")
