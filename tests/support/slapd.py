"""A real directory: OpenLDAP's slapd of the test's own, on loopback, with TLS."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.absent import absent
from tests.support.certificates import Certificates
from tests.support.running import free_port

BASE = "dc=hospital,dc=example"
READERS, LEADS = f"cn=readers,ou=groups,{BASE}", f"cn=leads,ou=groups,{BASE}"
PERSON_PASSWORD = "a word of the directory"
_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
TLSCACertificateFile {certificates}/ca.pem
TLSCertificateFile {certificates}/{who}.pem
TLSCertificateKeyFile {certificates}/{who}.key
allow bind_anon_dn
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=willis,{base}" read by * {others}
database mdb
suffix "{base}"
rootdn "cn=admin,{base}"
rootpw admin
directory {folder}/db
overlay memberof
"""
_ENTRIES = """
dn: {base}
objectClass: dcObject
objectClass: organization
o: Hospital

dn: cn=willis,{base}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: of the service

dn: ou=people,{base}
objectClass: organizationalUnit

dn: ou=groups,{base}
objectClass: organizationalUnit
"""
_PERSON = """
dn: uid={name},ou=people,{base}
objectClass: inetOrgPerson
sn: {name}
cn: {name}
displayName: Jane van Kim
mail: same@hospital.example
userPassword: {password}
"""
_GROUP = "\ndn: {dn}\nobjectClass: groupOfNames\n{members}\n"


@dataclass(frozen=True)
class Slapd:
    """It answers on two ports."""

    port: int
    tls_port: int
    folder: Path
    ca: Path

    def settings(self, **changes: Any) -> dict[str, Any]:
        """[web.ldap] for it, over TLS and with a name of Willis's own."""
        keys = {"url": f"ldaps://127.0.0.1:{self.tls_port}", "ca": self.ca, "bind_dn": f"cn=willis,{BASE}"}
        keys |= {"bind_password_file": self.folder / "password", "user_base": f"ou=people,{BASE}"}
        return keys | {"roles": {READERS: "reader", LEADS: "lead"}} | changes

    def plain(self, **changes: Any) -> dict[str, Any]:
        """The same without TLS, on loopback."""
        return self.settings(url=f"ldap://127.0.0.1:{self.port}", **changes)

    def run(self, program: str, *arguments: str, entries: str = "") -> "subprocess.CompletedProcess[str]":
        """One of OpenLDAP's programs, as the directory's administrator."""
        command = [program, "-x", "-H", f"ldap://127.0.0.1:{self.port}", *arguments]
        return subprocess.run(command, input=entries, capture_output=True, text=True, check=False)


@contextmanager
def running_slapd(folder: Path, certificates: Certificates, who: str = "node", others: str = "none") -> Iterator[Slapd]:
    """slapd runs within; `who` is the name of its certificate, `others` what they may without a name."""
    program = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None or shutil.which("ldapadd") is None:
        absent("no slapd: apt-get install slapd ldap-utils")
    (folder / "db").mkdir()
    names = {"folder": folder, "certificates": certificates.folder, "who": who, "base": BASE, "others": others}
    (folder / "slapd.conf").write_text(_CONFIG.format(**names))
    (folder / "password").write_text("of the service\n")
    made = Slapd(free_port(), free_port(), folder, certificates.folder / "ca.pem")
    addresses = f"ldap://127.0.0.1:{made.port} ldaps://127.0.0.1:{made.tls_port}"
    command = [program, "-f", str(folder / "slapd.conf"), "-h", addresses, "-d", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _fill(made, process)
        yield made
    finally:
        process.terminate()
        process.wait()


def _fill(made: Slapd, process: "subprocess.Popen[bytes]") -> None:
    people = {"dr.kim": [READERS], "dr.lead": [READERS, LEADS], "clerk": [], "odd(name)*": [READERS]}
    entries = _ENTRIES.format(base=BASE)
    entries += "".join(_PERSON.format(name=name, base=BASE, password=PERSON_PASSWORD) for name in people)
    for dn in (READERS, LEADS):
        members = [f"member: uid={name},ou=people,{BASE}" for name, groups in people.items() if dn in groups]
        entries += _GROUP.format(dn=dn, members="\n".join(members))
    deadline = time.monotonic() + 20
    while made.run("ldapwhoami").returncode:
        assert process.poll() is None, "slapd ended"
        assert time.monotonic() < deadline, "slapd does not answer"
        time.sleep(0.05)
    added = made.run("ldapadd", "-D", f"cn=admin,{BASE}", "-w", "admin", entries=entries)
    assert added.returncode == 0, added.stderr
