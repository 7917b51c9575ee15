"""Paths in the configuration that are not absolute: they are relative to the file that names them."""

from pathlib import Path

from node.config.notifications import Target
from node.config.peer import Peer
from node.config.sections import Config
from node.errors import ConfigError

_SQLITE = "sqlite:///"


def beside(config: Config, folder: Path) -> Config:
    """The configuration with every path absolute, relative ones taken from `folder`.  Raises ConfigError (`_check_moved`)."""
    _check_moved(config, folder)
    node, tls = config.node, config.node.tls
    if tls is not None:
        absolute = {"certificate": folder / tls.certificate, "key": folder / tls.key, "ca": folder / tls.ca}
        node = node.model_copy(update={"tls": tls.model_copy(update=absolute)})
    url = config.storage.database_url
    if url.startswith(_SQLITE) and url != _SQLITE and "?" not in url:
        url = f"{_SQLITE}{folder / url.removeprefix(_SQLITE)}"
    storage = {"directory": folder / config.storage.directory, "database_url": url}
    bundle = config.ai.bundle and folder / config.ai.bundle
    return config.model_copy(
        update={
            "node": node,
            "storage": config.storage.model_copy(update=storage),
            "ai": config.ai.model_copy(update={"bundle": bundle}),
            "notifications": tuple(_target(target, folder) for target in config.notifications),
            "peers": {name: _peer(peer, folder) for name, peer in config.peers.items()},
        }
    )


def _target(target: Target, folder: Path) -> Target:
    named = {key: folder / value for key in ("url_file", "token_file") if (value := getattr(target, key))}
    return target.model_copy(update=named) if named else target


def _peer(peer: Peer, folder: Path) -> Peer:
    named = {key: str(folder / value) for key in ("password_file", "token_file") if (value := getattr(peer, key))}
    return peer.model_copy(update=named) if named else peer


def _check_moved(config: Config, folder: Path) -> None:
    """Before, relative paths were taken from the working directory: who still has a database there must hear of it.

    Raises ConfigError: a node that began anew beside it would forget its cases.
    """
    directory = config.storage.directory
    there, here = Path.cwd() / directory, folder / directory
    if config.storage.database_url or there == here or not (there / "willis.db").exists():
        return
    if not (here / "willis.db").exists():
        raise ConfigError(
            f"[storage] directory = {str(directory)!r} is relative to the configuration file and means {here}, but the "
            f"database of this node is in {there}: write that path into the configuration, or move the folder"
        )
