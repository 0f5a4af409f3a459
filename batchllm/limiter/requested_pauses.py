"""Whether the pause that a refusal asks for is everybody's, where no limit was given or shown.

A refusal at random asks for a pause as well, and nobody but its row has a reason to keep it. While the pause runs,
requests that left behind the refused one are let in; or the pace that was refused is one that is known to be let in.
After two such pauses the gate takes no notice of what refusals ask for until a pause turns out to be real, and probes
as if nothing had been asked. The refused row always waits for as long as it was told.
"""

MAX_UNNEEDED = 2
SHORT_S = 1.5
"""A pause of this length may be a shorter one, rounded up to a second."""


class RequestedPauses:
    """What has become of the pauses that were asked for.

    Attributes:
        asked: The present pause, or the last one, was asked for.
        unneeded: Pauses that turned out not to be everybody's, since the last real one.
    """

    __slots__ = ("asked", "unneeded")

    def __init__(self) -> None:
        self.asked = False
        self.unneeded = 0

    @property
    def ignored(self) -> bool:
        """The gate takes no notice of what refusals ask for."""
        return self.unneeded >= MAX_UNNEEDED

    def probe_refused(self) -> None:
        """The pause was over, and the probe was refused: it is everybody's."""
        if self.asked:
            self.unneeded = 0

    def over(self, *, contradicted: bool) -> None:
        """A pause is over; the pace that was refused may be one that is known to be let in."""
        if self.asked and contradicted:
            self.unneeded += 1

    def may_be_rounded(self, paused_s: float, probes: int) -> bool:
        """A pause that lasted this long, with so many refused probes, may have been longer than needed."""
        return self.asked and paused_s < SHORT_S * (1 + probes)
