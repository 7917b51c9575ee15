"""A real OpenID Connect provider, django-oauth-toolkit, in a process of its own: its login page, PKCE, RS256, JWKS.

It is what Django projects serve as their provider, and shares no code with Authlib, which Willis signs in with.
"""

import socketserver
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.running import ROOT, free_port

CLIENT, SECRET, PERSON_PASSWORD = "willis", "a secret of the client", "a word of the provider"
PEOPLE = {"dr.kim": ["radiologists"], "dr.lead": ["radiologists", "lead"], "clerk": ["billing"]}
"""Who has an account there, and the groups."""
_LOGIN = (
    "<title>Hospital login</title><form method=post>{% csrf_token %}{{ form.as_p }}"
    '<input type=hidden name=next value="{{ next }}"><button>Log in</button></form>'
)


@dataclass(frozen=True)
class OpenIdProvider:
    """It answers at `issuer`, whose host is another site than 127.0.0.1."""

    issuer: str
    secret_file: Path

    def settings(self, **changes: Any) -> dict[str, Any]:
        """[web.oidc] for it."""
        roles = {"radiologists": "reader", "lead": "lead"}
        keys = {"name": "Hospital", "issuer": self.issuer, "client_id": CLIENT, "client_secret_file": self.secret_file}
        return keys | {"roles": roles} | changes


@contextmanager
def running_provider(folder: Path) -> Iterator[OpenIdProvider]:
    """The provider runs within, its database in the folder."""
    port = free_port()
    (folder / "secret").write_text(f"{SECRET}\n")
    command = [sys.executable, "-m", "tests.support.openid_provider", str(folder), str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield OpenIdProvider(f"http://localhost:{port}/o", folder / "secret")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _configure(folder: Path) -> None:
    from django.conf import settings

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    settings.configure(
        SECRET_KEY="of a test",
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF="tests.support.openid_provider_site",
        INSTALLED_APPS=[f"django.contrib.{app}" for app in ("auth", "contenttypes", "sessions")] + ["oauth2_provider"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "loaders": [("django.template.loaders.locmem.Loader", {"registration/login.html": _LOGIN})]
                },
            }
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "provider.db"}},
        MIGRATION_MODULES=dict.fromkeys(("auth", "contenttypes", "sessions", "oauth2_provider")),
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        LOGIN_URL="/login/",
        USE_TZ=True,
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "OAUTH2_VALIDATOR_CLASS": "tests.support.openid_provider_site.Validator",
            "PKCE_REQUIRED": True,
            "SCOPES": {"openid": "who you are", "profile": "your name"},
            "ID_TOKEN_EXPIRE_SECONDS": 300,
        },
    )


def _fill() -> None:
    from django.contrib.auth.models import Group, User
    from django.core.management import call_command
    from oauth2_provider.models import Application

    call_command("migrate", run_syncdb=True, verbosity=0)
    for name, groups in PEOPLE.items():
        person = User.objects.create_user(name, password=PERSON_PASSWORD)
        person.groups.set([Group.objects.get_or_create(name=group)[0] for group in groups])
    Application.objects.create(
        name="Willis",
        client_id=CLIENT,
        client_secret=SECRET,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
        redirect_uris="http://127.0.0.1/sign-in/oidc/answer",  # on loopback with any port (RFC 8252 7.3)
        algorithm=Application.RS256_ALGORITHM,
        skip_authorization=True,
    )


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def _serve(folder: Path, port: int) -> None:
    import django
    from django.core.wsgi import get_wsgi_application

    _configure(folder)
    django.setup()
    _fill()
    server = make_server("localhost", port, get_wsgi_application(), _Threaded, _Quiet)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
