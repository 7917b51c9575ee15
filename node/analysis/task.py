"""The task that claimants give the engine.  The scheduler reads it too, and imports no more than this for it."""


def answer(model: str, packed: bytes) -> tuple[str, bytes | str]:
    """As `node.analysis.engine_worker.answer`, which only a worker imports: with it comes torch."""
    from node.analysis import engine_worker

    return engine_worker.answer(model, packed)
