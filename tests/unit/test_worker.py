from node.worker import algorithm_of
from tests.unit.test_ai_bundle import manifest


def test_another_model_is_another_device() -> None:
    one, other = (algorithm_of(manifest(version=version)) for version in ("1", "2"))
    assert one == algorithm_of(manifest(version="1"))
    assert one.device_uid != other.device_uid
