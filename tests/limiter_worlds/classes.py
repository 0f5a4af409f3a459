"""The classes of worlds and how many of a cycle each has."""

import random

from . import generate as g
from .spec import Spec
from .tells import NO_RESET

CLASSES = {
    "told right, empty": (g.told(), 2),
    "told right, half": (g.told("half"), 1),
    "told right, spent": (g.told("spent"), 2),
    "told right, lawful headers": (g.known(g.lawful()), 2),
    "told too low": (g.told(factor=(0.3, 0.8)), 1),
    "told too high, Retry-After": (g.told(factor=(1.2, 3.0), retry_after="true"), 1),
    "told too high, silent": (g.told(factor=(1.2, 3.0), retry_after=""), 1),
    "told right, stranger": (g.beside(g.told()), 1),
    "told right, three of ours": (g.shared(g.told(), 3), 1),
    "lawful headers, empty": (g.lawful(), 2),
    "lawful headers, half": (g.lawful("half"), 2),
    "lawful headers, spent": (g.lawful("spent"), 2),
    "lawful headers, three of ours": (g.shared(g.lawful(), 3), 1),
    "lawful headers, stranger": (g.beside(g.lawful()), 1),
    "no reset, empty": (g.silent(headers=NO_RESET), 1),
    "no reset, spent": (g.silent("spent", headers=NO_RESET), 1),
    "lie: all free": (g.lawful(lie="free"), 1),
    "lie: none free": (g.lawful(lie="none"), 1),
    "lie: ten times": (g.lawful(lie="ten"), 1),
    "true Retry-After, empty": (g.silent(retry_after="true"), 1),
    "true Retry-After, spent": (g.silent("spent", retry_after="true"), 1),
    "Retry-After always 60": (g.silent(retry_after="60"), 1),
    "Retry-After always 1": (g.silent(retry_after="1"), 1),
    "nothing told, empty": (g.silent(), 2),
    "nothing told, half": (g.silent("half"), 1),
    "nothing told, spent": (g.silent("spent"), 2),
    "nothing told, two of ours": (g.shared(g.silent(), 2), 1),
    "nothing told, stranger": (g.beside(g.silent()), 1),
    "nothing told, noise 2 %": (g.silent(noise=0.02), 1),
    "nothing told, noise 10 %": (g.silent(noise=0.1), 1),
    "nothing told, noise 30 %": (g.silent(noise=0.3), 1),
    "told right, noise 2 %": (g.told(noise=0.02), 1),
    "told right, noise 10 %": (g.told(noise=0.1), 1),
    "lawful headers, noise 10 %": (g.lawful(noise=0.1), 1),
    "no limit": (g.unlimited(), 1),
    "no limit, noise 2 %": (g.unlimited(noise=0.02), 1),
    "no limit, noise 10 %": (g.unlimited(noise=0.1), 1),
    "no limit, noise 30 %": (g.unlimited(noise=0.3), 1),
    "cap of 4": (g.capped(4), 1),
    "cap of 20": (g.capped(20), 1),
    "cap of 20 and a limit": (g.capped(20, limited=True), 1),
    "faults": (g.faulty(g.unlimited()), 1),
    "faults, told right": (g.faulty(g.told()), 1),
    "outage": (g.faulty(g.told(), outage=True), 1),
    "tokens, told": (g.tokens(said=True), 1),
    "tokens, headers": (g.tokens(shown=True), 1),
    "tokens, silent": (g.tokens(), 1),
    "requests and tokens, told": (g.tokens(said=True, requests=True), 1),
    "requests and tokens, headers": (g.tokens(shown=True, requests=True), 1),
    "daily quota": (g.daily, 1),
    "small job, empty": (g.small("empty"), 1),
    "small job, spent": (g.small("spent"), 1),
    "sliding, told": (g.known(g.other_windows("sliding")), 1),
    "sliding, headers": (g.both(g.other_windows("sliding"), g.headers_with_reset), 1),
    "sliding, silent": (g.other_windows("sliding"), 1),
    "short, told": (g.known(g.other_windows("short")), 1),
    "short, headers": (g.both(g.other_windows("short"), g.headers_with_reset), 1),
    "short, silent": (g.other_windows("short"), 1),
    "odd first, no limit": (g.odd(g.unlimited()), 1),
    "odd first, silent": (g.odd(g.silent()), 1),
    "odd first, told right": (g.odd(g.told()), 1),
}
ORDER = [name for name, (_, times) in CLASSES.items() for _ in range(times)]
random.Random(4).shuffle(ORDER)


def spec_of(seed: int, name: str | None = None) -> Spec:
    """The world of a seed: of its own class in the cycle, or of the class named."""
    name = name or ORDER[seed % len(ORDER)]
    rng = random.Random(f"{name} {seed}")
    parts = g.base(rng) | CLASSES[name][0](rng)
    return Spec(name=name, seed=seed, **parts)
