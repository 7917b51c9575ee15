"""[web.oidc] and [web.ldap]: what they take, and what is said of the rest."""

import tomllib
from pathlib import Path

import pytest

from node.config.sign_in import Ldap, Oidc
from node.config.types import Section
from node.errors import ConfigError
from tests.support.config_files import SHIPPED, complaint, loaded, plain

OIDC = '[web.oidc]\nissuer = "https://id.example/realms/hospital"\nclient_id = "willis"\n'


@pytest.mark.parametrize(("name", "section"), [("oidc", Oidc), ("ldap", Ldap)])
def test_the_commented_section_of_a_provider_shows_its_defaults(name: str, section: type[Section]) -> None:
    [_, after] = SHIPPED.read_text("utf-8").split(f"# [web.{name}]")
    lines = [line.removeprefix("# ") for line in after.split("\n\n")[0].splitlines()[1:]]
    shown = tomllib.loads("\n".join(lines))
    assert list(shown) == list(section.model_fields)
    for key, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True) if not field.is_required() else None
        assert shown[key] == ("" if default is None else plain(default)), key


def test_a_provider_s_files_are_beside_the_configuration(tmp_path: Path) -> None:
    more = 'roles = { r = "lead" }\nclient_secret_file = "secret"\nca = "ca.pem"\n'
    oidc = loaded(tmp_path, OIDC + more).web.oidc
    assert oidc is not None
    assert (oidc.client_secret_file, oidc.ca) == (tmp_path / "secret", tmp_path / "ca.pem")
    assert (oidc.host, dict(oidc.roles)) == (("id.example", 443), {"r": "lead"})
    with pytest.raises(ConfigError, match="client_secret_file = .*: No such file or directory"):
        oidc.secret()
    (tmp_path / "secret").write_text("two\nlines")
    with pytest.raises(ConfigError, match="must hold one line and nothing else"):
        oidc.secret()
    (tmp_path / "secret").write_text("of the client\n")
    assert oidc.secret() == "of the client"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (OIDC, "[web.oidc] nobody could sign in; write roles = { GROUP = "),
        (
            OIDC.replace("https", "http") + 'default_role = "lead"',
            "web.oidc.issuer = 'http://id.example/realms/hospital'",
        ),
        (OIDC.replace("id.example", "user@id.example") + 'default_role = "lead"', "web.oidc.issuer = "),
        (OIDC + 'default_role = "god"', "web.oidc.default_role"),
        (OIDC + 'roles = { r = "god" }', "web.oidc.roles.r = 'god'"),
        (OIDC + 'default_role = "lead"\nscopes = ["profile"]', '[web.oidc] scopes needs "openid"'),
        (
            OIDC + 'default_role = "lead"\nclient_secret = "x"',
            "unknown key web.oidc.client_secret; did you mean client_secret_file?",
        ),
        (OIDC.replace("client_id", "client"), "web.oidc.client_id is missing"),
    ],
)
def test_a_provider_that_cannot_be_used_is_an_error(tmp_path: Path, content: str, said: str) -> None:
    assert complaint(tmp_path, content).startswith(f"config.toml: {said}")


LDAP = '[web.ldap]\nurl = "ldaps://dc1.example"\nuser_base = "ou=people,dc=example"\ndefault_role = "reader"\n'


def test_a_directory_s_files_are_beside_the_configuration_and_its_port_is_the_usual(tmp_path: Path) -> None:
    ldap = loaded(tmp_path, LDAP + 'bind_dn = "cn=willis"\nbind_password_file = "secret"\n').web.ldap
    assert ldap is not None
    assert (ldap.bind_password_file, ldap.host) == (tmp_path / "secret", ("dc1.example", 636))
    (tmp_path / "secret").write_text("")
    with pytest.raises(ConfigError, match="bind_password_file = .* must hold one line and nothing else"):
        ldap.password()
    for url in ("ldap://127.0.0.1", "ldap://localhost:1389", "ldap://[::1]"):
        assert loaded(tmp_path, LDAP.replace("ldaps://dc1.example", url)).web.ldap
    for more in ("starttls = true", "allow_plain = true"):
        assert loaded(tmp_path, LDAP.replace("ldaps:", "ldap:") + more).web.ldap


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LDAP.replace("ldaps:", "ldap:"), "url would send passwords without TLS; write ldaps, or starttls = true"),
        (LDAP.replace("ldaps:", "https:"), "url is ldaps://HOST[:PORT] or ldap://HOST[:PORT]"),
        (LDAP.replace("dc1.example", "dc1.example/dc=example"), "url is ldaps://HOST[:PORT] or ldap://HOST[:PORT]"),
        (LDAP.replace("dc1.example", "a:b@dc1.example"), "url is ldaps://HOST[:PORT] or ldap://HOST[:PORT]"),
        (LDAP.replace("dc1.example", "dc1.example:x"), "url is ldaps://HOST[:PORT] or ldap://HOST[:PORT]"),
        (LDAP + "starttls = true", "starttls goes with an ldap url"),
        (LDAP + 'bind_dn = "cn=willis"', "bind_dn and bind_password_file go together"),
        (LDAP + 'user_filter = "(uid=*)"', "user_filter needs {name}"),
        (LDAP + 'group_base = "ou=g"\ngroup_filter = "(member=*)"', "group_filter needs {dn}"),
        (LDAP.replace("default_role", "# "), 'nobody could sign in; write roles = { "GROUP'),
    ],
)
def test_a_directory_that_cannot_be_used_is_an_error(tmp_path: Path, content: str, said: str) -> None:
    assert complaint(tmp_path, content).startswith(f"config.toml: [web.ldap] {said}")


@pytest.mark.parametrize(("host", "url", "is_right"), [
    ("0.0.0.0", "", False), ("0.0.0.0", "https://willis.hospital", True), ("127.0.0.1", "", True), ("localhost", "", True),
    ("::1", "", True), ("10.0.0.9", "", False),
])  # fmt: skip
def test_a_provider_needs_the_url_that_people_open_unless_they_are_on_this_machine(
    tmp_path: Path, host: str, url: str, is_right: bool
) -> None:
    content = f'[web]\nhost = "{host}"\nurl = "{url}"\n{OIDC}default_role = "reader"\n'
    if is_right:
        assert loaded(tmp_path, content).web.address
    else:
        assert f"[web.oidc] with [web] host = {host!r} needs [web] url" in complaint(tmp_path, content)
