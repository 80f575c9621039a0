"""The embedded teacher: rules over the evidence and the hindsight. Deterministic, and the same for every shop.

All thresholds and weights are INFERRED. What only hindsight knows (what the user gave the item, what was taken later)
makes levels and never reasons: a judge that learns to give reasons must be able to see them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.semantic_judge.aspects import CONTEXT, FUTURE, NOVELTY, PROFILE, UNKNOWN, Aspect, Levels
from training.semantic_judge.evidence import Bands, Evidence, column
from training.semantic_judge.examples import Examples, Floats, Hindsight, Ints
from training.semantic_judge.teachers.labels import Labels, entropies

_VERSION = 2
"""Raise it when a rule would give other levels."""
_NEUTRAL = 3.0
_PRIOR = 5.0  # so many ratings of the neutral kind stand beside those of an item


@dataclass(frozen=True)
class RulesConfig:
    """`weights` of the parts of profile fit, each from -1 to 1; unknown parts do not count, and `prior` is the weight
    of having no opinion. `profile`: the fit from which on each level above the lowest begins. `own`: what the user gave
    the item, which hindsight knows. `asked`: the shares of the words looked for from which on an item answers partly,
    and wholly. `wanted`: what a user must have made of an item, -1 to 1, for it to be perhaps, and surely, what was
    wanted. `told`: how evenly (entropy over that of even use) these levels must be spread over all examples for them to
    say so."""

    weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "liked": 1.0,
            "disliked": 1.0,
            "brand": 0.5,
            "category": 0.5,
            "price": 0.25,
            "rating": 1.0,
            "own": 3.0,
        }
    )
    prior: float = 0.5
    profile: tuple[float, float, float, float] = (-0.35, -0.05, 0.2, 0.5)
    asked: tuple[float, float] = (0.34, 0.67)
    wanted: tuple[float, float] = (-0.25, 0.25)
    told: float = 0.1


@dataclass(frozen=True)
class RuleTeacher:
    """A `Teacher`."""

    config: RulesConfig
    aspects: Sequence[Aspect]
    evidence: Evidence

    @property
    def hash(self) -> str:
        """See `Teacher.hash`."""
        values = {"rules": _VERSION, **asdict(self.config), "aspects": [asdict(one) for one in self.aspects]}
        values |= {"bands": asdict(self.evidence.bands), "asked_bands": asdict(self.evidence.asked)}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def teach(self, examples: Examples, rows: Ints, numbers: Floats) -> Labels:
        """See `Teacher.teach`."""
        seen = self._parts(numbers)
        own = own_fit(examples.hindsight, rows)
        found = {
            PROFILE.name: self._profile(seen | {"own": own}),
            FUTURE.name: self._future(examples, rows),
            NOVELTY.name: self._novelty(numbers),
            CONTEXT.name: self._context(numbers),
        }
        levels = np.stack([found[aspect.name] for aspect in self.aspects], axis=1).astype(np.int8)
        return Labels(levels, self._reasons(seen, numbers))

    def _parts(self, numbers: Floats) -> dict[str, Floats]:
        """What the evidence says for the item (to 1) or against it (to -1), NaN where it says nothing: [rows] each."""
        bands = self.evidence.bands
        seen = column(numbers, "brand.share"), column(numbers, "category.share")
        rated = column(numbers, "brand.rating"), column(numbers, "category.rating")
        brand, category = (
            np.where(share > 0, np.where(np.isnan(stars), 0.5, _of_stars(stars)), np.nan)
            for share, stars in zip(seen, rated, strict=True)
        )
        events = np.nan_to_num(column(numbers, "item.events"))
        return {
            "liked": pull(column(numbers, "near.liked"), bands),
            "disliked": -pull(column(numbers, "near.disliked"), bands),
            "brand": brand,
            "category": category,
            # Nothing against it up to half or twice the usual price, all against it from a quarter or four times on.
            "price": -np.clip(np.abs(column(numbers, "price.beside")) / np.log(2.0) - 1.0, 0.0, 1.0),
            "rating": _of_stars(column(numbers, "item.rating")) * (events / (events + _PRIOR)),
        }

    def _profile(self, parts: Mapping[str, Floats]) -> Levels:
        """The weighted mean of the parts, drawn to 0 by the prior, in levels."""
        weights = np.array([self.config.weights.get(name, 0.0) for name in parts])
        values = np.stack(list(parts.values()), axis=1)
        known = ~np.isnan(values)
        fit = (np.where(known, values, 0.0) @ weights) / (known @ weights + self.config.prior)
        return _levels(np.where((known & (weights > 0)).any(axis=1), fit, np.nan), self.config.profile)

    def _future(self, examples: Examples, rows: Ints) -> Levels:
        """What became of the item: likely, what was taken and not regretted, unlikely, what was passed over or
        regretted; unknown of all else.

        Where a shop knows of hardly any item that it was not wanted (nobody rates there, and no lists are logged), how
        near the item is to what the user took later, unknown of a user who took nothing.
        """
        became = _levels(own_fit(examples.hindsight, np.arange(len(examples))), self.config.wanted)
        if entropies(became[:, None], (FUTURE,))[FUTURE.name] >= self.config.told:
            return became[rows]
        bands = self.evidence.bands
        return _levels(self._nearest_later(examples, rows), (bands.near, bands.very))

    def _nearest_later(self, examples: Examples, rows: Ints) -> Floats:
        """The largest cosine of the item with what was taken later, NaN where nothing was: [rows]."""
        hindsight, item, vectors = examples.hindsight, examples.cases.item, self.evidence.vectors
        found = np.full(len(rows), np.nan, dtype=np.float32)
        for place, row in enumerate(rows.tolist()):
            later = hindsight.later[hindsight.starts[row] : hindsight.starts[row + 1]]
            if len(later):
                found[place] = (vectors[later] @ vectors[item[row]]).max()
        return found

    def _novelty(self, numbers: Floats) -> Levels:
        """Known is what was taken or nearly the same; a variation what is near to something, or of a known brand."""
        bands = self.evidence.bands
        near = column(numbers, "near.any")
        variation = (near >= bands.near) | (column(numbers, "brand.share") > 0)
        known = (column(numbers, "taken.times") > 0) | (near >= bands.same)
        return np.where(known, 0, np.where(variation, 1, 2)).astype(np.int8)

    def _context(self, numbers: Floats) -> Levels:
        """By nearness to what is looked for or by the share of its words, whichever says more."""
        near, words = column(numbers, "context.near"), column(numbers, "context.words")
        by_text = _levels(near, (self.evidence.asked.near, self.evidence.asked.very))
        return np.maximum(by_text, _levels(words, self.config.asked))

    def _reasons(self, seen: Mapping[str, Floats], numbers: Floats) -> list[str | None]:
        """For each row the two parts that weigh most, in words."""
        names = list(seen)
        weights = np.array([self.config.weights.get(name, 0.0) for name in names])
        values = np.nan_to_num(np.stack(list(seen.values()), axis=1)) * weights
        best = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :2]
        taken = column(numbers, "taken.times") > 0
        return [
            "; ".join(
                [WORDS[names[part]][int(values[row, part] > 0)] for part in parts if values[row, part]]
                + ([TAKEN] if taken[row] else [])
            )
            or "little is known"
            for row, parts in enumerate(best.tolist())
        ]


WORDS: Mapping[str, tuple[str, str]] = {
    "liked": ("far from what was liked", "near to what was liked"),
    "disliked": ("near to what was disliked", "far from what was disliked"),
    "brand": ("of a brand that displeased", "of a brand that pleased"),
    "category": ("of a kind that displeased", "of a kind that pleased"),
    "price": ("unlike the usual prices", "at the usual price"),
    "rating": ("others rated it low", "others rated it high"),
}
"""Of each part, what speaks against an item and what for it."""
TAKEN = "taken before"


def pull(cosine: Floats, bands: Bands) -> Floats:
    """0 up to `near`, 1 from `very` near on, linear between: [n]; NaN where nothing is known."""
    if bands.near > 1.0:
        return np.full_like(cosine, np.nan)
    share = (cosine - bands.near) / max(bands.very - bands.near, 1e-6)
    return np.asarray(np.clip(share, 0.0, 1.0), dtype=np.float32)


def own_fit(hindsight: Hindsight, rows: Ints) -> Floats:
    """What the user made of the item, -1 to 1: the stars, else half of a like for having taken it, and of a dislike for
    having passed it over; NaN: not known."""
    shown = np.where(hindsight.taken[rows], np.float32(0.5), np.where(hindsight.passed[rows], np.float32(-0.5), np.nan))
    stars = _of_stars(hindsight.rating[rows])
    return np.where(np.isnan(stars), shown, stars).astype(np.float32)


def _of_stars(stars: Floats) -> Floats:
    """5 stars are 1, 1 star is -1."""
    return ((stars - _NEUTRAL) / (5.0 - _NEUTRAL)).astype(np.float32)


def _levels(values: NDArray[np.floating], thresholds: Sequence[float]) -> Levels:
    """How many of the ascending thresholds each value reaches; `UNKNOWN` for NaN."""
    found = np.searchsorted(np.array(thresholds), np.nan_to_num(values), side="right")
    return np.where(np.isnan(values), UNKNOWN, found).astype(np.int8)
