"""The storage folder of a configuration, and the object store behind it where one is configured."""

from pathlib import Path

from node.config.sections import Config
from node.errors import ConfigError
from storage.errors import StorageError
from storage.files.instances import Files
from storage.files.objects import Bucket, Objects


def bucket_of(config: Config) -> Bucket | None:
    """Where [storage] objects is, None where it is not configured."""
    settings = config.storage
    if not settings.objects:
        return None
    return Bucket(
        settings.objects,
        settings.objects_endpoint,
        settings.objects_region,
        Path(settings.objects_credentials) if settings.objects_credentials else None,
        Path(settings.objects_ca) if settings.objects_ca else None,
        config.node.network_timeout_seconds,
    )


def files_of(config: Config) -> Files:
    """The files of this node.  Raises ConfigError where the object store cannot be used, StorageError as `Files` does."""
    bucket = bucket_of(config)
    try:
        objects = None if bucket is None else Objects(bucket)
    except StorageError as error:
        raise ConfigError(str(error)) from None
    return Files(config.storage.directory, objects)
