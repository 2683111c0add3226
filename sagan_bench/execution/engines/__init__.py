"""The engines, one a module; `Engine` says what one does.

One that makes runs elsewhere has `Settings` in ``_NAME/settings.py``, which is read without torch.
"""

from typing import TYPE_CHECKING

from sagan_bench.core.registry import ENGINES

if TYPE_CHECKING:
    from sagan_bench.execution.engine import Engine, Place
    from sagan_bench.execution.profiles import Profile
    from sagan_bench.session.events import Stop


def opened(profile: "Profile", place: "Place", stop: "Stop") -> "Engine":
    """Return the engine of a profile, to be closed.

    Raises:
        UserError: there is none, or the device is not here.
    """
    engine: Engine
    if profile.settings is not None:
        engine = ENGINES[profile.kind](place, profile.settings)
        return engine
    from sagan_bench.execution.slots import slots  # torch

    engine = ENGINES[profile.kind](slots(place.jobs, place.device, place.runs), stop)
    return engine
