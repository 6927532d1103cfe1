import pytest


@pytest.fixture(scope="session")
def graphics() -> None:
    """Skips where nothing renders offscreen."""
    from metarl.envs.rendering import RenderingUnavailable, open_context

    try:
        open_context(16, 16).free()
    except RenderingUnavailable as error:
        pytest.skip(str(error))
