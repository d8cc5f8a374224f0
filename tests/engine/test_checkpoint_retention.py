"""Whatever is saved, stopped, pinned and resumed, in any order: the newest and the pinned checkpoints are there."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.engine.checkpoints.checkpoint import Checkpoints
from bigtrain.engine.checkpoints.files import committed, verify
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.ranks import Ranks
from tests.engine.checkpoint_cases import MEMORY, StopAt, Stopped, is_state, leftovers, save


class Model:
    """What a checkpoints folder must hold: the newest `keep_last` that were saved, and the pinned ones."""

    def __init__(self, folder, keep_last):
        self.folder, self.keep_last = folder, keep_last
        self.checkpoints = Checkpoints(folder, Ranks.single(), keep_last)
        self.images = 0
        self.saved, self.pins = [], set()

    def save(self, stop_at):
        """Save the next step; stopped at an operation or not."""
        self.images += 1
        try:
            with StopAt(stop_at, "stop"):
                save(Ranks.single(), self.folder, self.images, self.keep_last)
        except Stopped:
            if self.images not in committed(self.folder):
                return
        self.saved.append(self.images)

    def restart(self):
        """Go on from the newest, as a new start does."""
        loaded = self.checkpoints.load_newest()
        assert (loaded is None) == (not self.saved)
        if loaded is not None:
            assert is_state(loaded, self.saved[-1])
            self.images = loaded.images

    def pin(self, back):
        """Pin one of those that are there."""
        there = committed(self.folder)
        if there:
            images = there[back % len(there)]
            self.checkpoints.pin(images, "best")
            self.pins.add(images)

    def unpin(self):
        """Let the oldest pinned one go."""
        if self.pins:
            images = min(self.pins)
            self.checkpoints.unpin(images)
            self.pins.discard(images)

    def check(self):
        """At least the newest and the pinned ones are there and verify; after a whole save, no others."""
        there = committed(self.folder)
        must = set(self.saved[-self.keep_last :]) | self.pins
        assert must <= set(there)
        for images in there:
            assert verify(self.folder / folder_name(images)).images == images


STEPS = st.one_of(
    st.tuples(st.just("save"), st.none()),
    st.tuples(st.just("save"), st.integers(1, 45)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("pin"), st.integers(0, 5)),
    st.tuples(st.just("unpin")),
)


@settings(max_examples=60, deadline=None)
@given(keep_last=st.integers(2, 4), steps=st.lists(STEPS, min_size=3, max_size=12))
def test_retention_never_leaves_fewer_than_promised(keep_last, steps):
    play(keep_last, steps)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(keep_last=st.integers(2, 4), steps=st.lists(STEPS, min_size=3, max_size=12))
def test_retention_never_leaves_fewer_than_promised_at_length(keep_last, steps):
    play(keep_last, steps)


def play(keep_last, steps):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        play_in(Path(folder) / "checkpoints", keep_last, steps)


def play_in(folder, keep_last, steps):
    model = Model(folder, keep_last)
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
        model.check()
    model.restart()
    model.save(None)
    model.check()
    assert set(committed(folder)) == set(model.saved[-keep_last:]) | model.pins
    assert leftovers(folder) == []
