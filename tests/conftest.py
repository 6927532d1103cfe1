import os
from pathlib import Path

import pytest

from metarl.envs import mujoco_log


@pytest.fixture(scope="session", autouse=True)
def silence():
    """Simulations of the tests' own may be unstable too: MuJoCo writes no MUJOCO_LOG.TXT into the repository."""
    with mujoco_log.silent():
        yield


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """What the tests trust, nobody else does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def kernels():
    """The kernels that Warp compiles, half a minute's work, stay in the user's cache: many tests have another home."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARP_CACHE_PATH", os.environ.get("WARP_CACHE_PATH", str(Path(cache, "warp"))))
        yield


@pytest.fixture(scope="session")
def graphics() -> None:
    """Skips where nothing renders offscreen."""
    from metarl.envs.rendering import RenderingUnavailable, open_context

    try:
        open_context(16, 16).free()
    except RenderingUnavailable as error:
        pytest.skip(str(error))
