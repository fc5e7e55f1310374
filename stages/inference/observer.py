"""What an engine reports while it runs, for whoever counts it."""

from __future__ import annotations


class Observer:
    """Is informed of an engine's work, from any thread. Ignores it: a server's metrics override these methods.

    Times are in seconds.
    """

    def load(self, running: int, waiting: int, slots: int) -> None:
        """The numbers of running and waiting sequences have changed. `slots`: of the batch."""

    def queued(self, seconds: float) -> None:
        """A sequence left the queue for the batch, after this time."""

    def prompt_tokens(self, count: int) -> None:
        """This number of tokens of a prompt has been read."""

    def first_token(self, seconds: float) -> None:
        """A sequence has its first token, this time after its request arrived."""

    def next_token(self, seconds: float) -> None:
        """A sequence has another token, this time after the one before."""

    def finished(self, reason: str, tokens: int, seconds: float) -> None:
        """A sequence ended with this number of generated tokens, this time after its request arrived."""
