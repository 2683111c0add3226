"""What a run is followed with elsewhere: a class a file, told what the run writes anyway."""

from sagan_bench.session.trackers._base import RunFacts as RunFacts
from sagan_bench.session.trackers._base import Tracker as Tracker
