"""The provenance of weights, as data: published sources, training runs and untrained parts.

config.json holds it under `provenance`. The note shown with the scores, the model card and the licence are derived from
it.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

PARTS = ("backbone", "adapter", "head")  # of a branch; `untrained` combines both names, as in "technical_head"


@strict
@dataclass(kw_only=True)
class Source:
    """A file of published weights from which some branches were initialised.

    Args:
        branches: the branches that were initialised from it.
        name: name of the published model.
        address: "hub:owner/name/file", an https address, or the name of a local file.
        license: licence of the weights, as their publisher calls it.
        sha256: SHA-256 of the file.
        commercial_use: whether the licence allows commercial use.
    """

    branches: list[str]
    name: str
    address: str
    license: str
    sha256: str
    commercial_use: bool = True


@strict
@dataclass(kw_only=True)
class Run:
    """One training run that led to these weights.

    Args:
        stage: "stage1", "pre-training, technical", ...
        branches: the branches that it trained.
        data: name of the dataset: a Hub id or the name of a folder, never a path.
        labels: score -> column of its labels; empty if the run was not a regression on opinion scores.
        unfixed_ratio: share of every encoder that was trained.
        lora_rank: rank of the LoRA adapters that were trained on some encoders and merged; 0 for none.
        epochs: number of epochs.
        best_epoch: the epoch whose weights were kept; None if no epoch was selected.
        num_clips: number of training clips.
        simulated: whether the clips are drawn and the opinions computed by a program, as in the synthetic benchmark.
        seconds: duration.
        commit: commit of the training code; None if it is not known.
    """

    stage: str
    branches: list[str]
    data: str
    labels: dict[str, str] = field(default_factory=dict)
    unfixed_ratio: float | int = 1.0
    lora_rank: int = 0
    epochs: int | None = None
    best_epoch: int | None = None
    num_clips: int | None = None
    simulated: bool = False
    seconds: float | int = 0.0
    commit: str | None = None


@strict
@dataclass(kw_only=True)
class Provenance:
    """Everything that is known about the weights of a model.

    Args:
        sources: published weights.
        runs: training runs, the earliest first.
        untrained: parts that still have random weights, such as "aesthetic_head" (a branch and one of `PARTS`).
        caveat: a warning of the publisher that is shown with the scores.
        license: licence of the weights, if the publisher states one. Restrictions of the sources apply all the same.
    """

    sources: list[Source] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)
    caveat: str | None = None
    license: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> "Provenance":
        """The inverse of `to_dict`; None means that nothing is known.

        Raises:
            ValueError: for an unknown field, a missing field or a wrong type; names the field.
        """
        try:
            values = dict(values or {})
            for name, kind in (("sources", Source), ("runs", Run)):
                values[name] = [kind(**entry) for entry in values.get(name, [])]
            return cls(**values)
        except (TypeError, ValueError, StrictDataclassError) as error:
            raise ValueError(f"provenance: {error.__cause__ or error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Nested lists and dicts that JSON can store."""
        return dataclasses.asdict(self)

    @property
    def known(self) -> bool:
        """Whether anything is known."""
        return self != Provenance()

    @property
    def commercial_use(self) -> bool:
        """Whether every source allows commercial use."""
        return all(source.commercial_use for source in self.sources)

    def is_trained(self, branch: str) -> bool:
        """Whether a training run has trained the branch."""
        return any(branch in run.branches for run in self.runs)

    def with_run(self, run: Run) -> "Provenance":
        """The provenance after one more run.

        Heads and adapters count as trained after any run, backbones only after a run that trained all of their layers.
        """
        trained = PARTS if run.unfixed_ratio == 1 and not run.lora_rank else ("adapter", "head")
        done = {f"{branch}_{part}" for branch in run.branches for part in trained}
        untrained = [part for part in self.untrained if part not in done]
        return dataclasses.replace(self, runs=[*self.runs, run], untrained=untrained)

    def with_teacher(self, teacher: "Provenance") -> "Provenance":
        """The provenance of a model that learns from the scores of another one: it shares its sources and runs."""
        sources = [source for source in teacher.sources if source not in self.sources]
        runs = [run for run in teacher.runs if run not in self.runs]
        return dataclasses.replace(self, sources=[*self.sources, *sources], runs=[*self.runs, *runs])

    def of_branches(self, branches: list[str]) -> "Provenance":
        """The part that concerns these branches. The caveat and the licence are kept."""
        sources, runs = (
            [
                dataclasses.replace(entry, branches=[branch for branch in entry.branches if branch in branches])
                for entry in entries
                if set(entry.branches) & set(branches)
            ]
            for entries in (self.sources, self.runs)
        )
        untrained = [part for part in self.untrained if part.partition("_")[0] in branches]
        return dataclasses.replace(self, sources=sources, runs=runs, untrained=untrained)

    def merged(self, other: "Provenance") -> "Provenance":
        """The provenance of a model that is merged from two models."""
        return Provenance(
            sources=self.sources + other.sources,
            runs=self.runs + other.runs,
            untrained=self.untrained + other.untrained,
            caveat=" ".join(dict.fromkeys(filter(None, (self.caveat, other.caveat)))) or None,
            license=self.license if self.license == other.license else None,
        )

    def note(self, branches: list[str]) -> str | None:
        """What users must know about the scores of a model with these branches; None for nothing."""
        mine = self.of_branches(branches)
        sentences = [mine.caveat, mine._untrained_note(branches), mine._published_note(branches)]
        if mine.runs and all(run.simulated for run in mine.runs):
            sentences.append(
                "Trained on drawn scenes with simulated raters alone: its scores are not human opinion and say little "
                "about real videos."
            )
        if not mine.commercial_use:
            licenses = ", ".join(dict.fromkeys(s.license for s in mine.sources if not s.commercial_use))
            sentences.append(f"NON-COMMERCIAL use only ({licenses}).")
        return " ".join(filter(None, sentences)) or None

    def _untrained_note(self, branches: list[str]) -> str | None:
        random = [branch for branch in branches if f"{branch}_backbone" in self.untrained]
        heads = [branch for branch in branches if branch not in random and f"{branch}_head" in self.untrained]
        if random == list(branches):
            return "The weights of this model are untrained (random): its scores say nothing about quality."
        sentences = []
        if random:
            sentences.append(f"Not trained yet, so that their scores say nothing: {', '.join(random)}.")
        if heads:
            sentences.append(f"Head not trained yet, so that the score says nothing: {', '.join(heads)}.")
        return " ".join(sentences) or None

    def _published_note(self, branches: list[str]) -> str | None:
        published = [branch for branch in branches if not self.is_trained(branch)]
        names = dict.fromkeys(s.name for s in self.sources if set(s.branches) & set(published))
        if not names:
            return None
        if published == list(branches):
            return f"Assembled from published weights ({', '.join(names)}), not trained on AI-generated video."
        return f"Published weights, not trained on AI-generated video: {', '.join(published)} ({', '.join(names)})."


__all__ = ["Provenance", "Run", "Source"]
