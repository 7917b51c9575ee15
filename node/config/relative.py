"""Paths in the configuration that are not absolute: they are relative to the file that names them."""

from pathlib import Path

from node.config.notifications import Target
from node.config.peer import Peer
from node.config.sections import Certificates, Config, Web
from node.config.sign_in import Ldap, Oidc
from node.errors import ConfigError

_SQLITE = "sqlite:///"


def beside(config: Config, folder: Path) -> Config:
    """The configuration with every path absolute, relative ones taken from `folder`.  Raises ConfigError (`_check_moved`)."""
    _check_moved(config, folder)
    node, tls = config.node, config.node.tls
    if tls is not None:
        node = node.model_copy(update={"tls": tls.model_copy(update=_certificates(tls, folder))})
    url = config.storage.database_url
    if url.startswith(_SQLITE) and url != _SQLITE and "?" not in url:
        url = f"{_SQLITE}{folder / url.removeprefix(_SQLITE)}"
    storage: dict[str, object] = {"directory": folder / config.storage.directory, "database_url": url}
    of_objects = ("objects_credentials", "objects_ca")
    storage |= {key: str(folder / path) for key in of_objects if (path := getattr(config.storage, key))}
    of_ai: dict[str, object] = {key: folder / path for key in ("bundle", "shadow") if (path := getattr(config.ai, key))}
    if (engine_tls := config.ai.engine_tls) is not None:
        of_ai["engine_tls"] = engine_tls.model_copy(update=_certificates(engine_tls, folder))
    return config.model_copy(
        update={
            "node": node,
            "storage": config.storage.model_copy(update=storage),
            "ai": config.ai.model_copy(update=of_ai),
            "notifications": tuple(_target(target, folder) for target in config.notifications),
            "web": _web(config.web, folder),
            "peers": {name: _peer(peer, folder) for name, peer in config.peers.items()},
        }
    )


def _certificates(named: Certificates, folder: Path) -> dict[str, Path]:
    return {"certificate": folder / named.certificate, "key": folder / named.key, "ca": folder / named.ca}


def _web(web: Web, folder: Path) -> Web:
    named: dict[str, Oidc | Ldap] = {}
    for key, section in (("oidc", web.oidc), ("ldap", web.ldap)):
        if section is not None:
            files = ("ca", "client_secret_file", "bind_password_file")
            paths = {each: folder / value for each in files if (value := getattr(section, each, None))}
            named[key] = section.model_copy(update=paths)
    return web.model_copy(update=named)


def _target(target: Target, folder: Path) -> Target:
    named = {key: folder / value for key in ("url_file", "token_file") if (value := getattr(target, key))}
    return target.model_copy(update=named) if named else target


def _peer(peer: Peer, folder: Path) -> Peer:
    named = {key: str(folder / value) for key in ("password_file", "token_file") if (value := getattr(peer, key))}
    return peer.model_copy(update=named) if named else peer


def _check_moved(config: Config, folder: Path) -> None:
    """Before, relative paths were taken from the working directory: who still has something there must hear of it.

    Raises ConfigError: a node that began anew beside it would forget its cases.
    """
    storage = config.storage
    kept = [("directory", storage.directory, "instances" if storage.database_url else "willis.db")]
    if storage.database_url.startswith(_SQLITE) and "?" not in storage.database_url:
        kept.append(("database_url", Path(storage.database_url.removeprefix(_SQLITE)), ""))
    for key, path, content in kept:
        there, here = Path.cwd() / path, folder / path
        if there != here and (there / content).exists() and not (here / content).exists():
            raise ConfigError(
                f"[storage] {key} = {str(getattr(storage, key))!r} is relative to the configuration file and means {here}, "
                f"but the {'files' if content == 'instances' else 'database'} of this node "
                f"{'are' if content == 'instances' else 'is'} in {there}: write that path into the configuration, or move it"
            )
