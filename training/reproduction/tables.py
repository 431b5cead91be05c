"""Tables 2, 4, 5 and 6 of the paper: the training that each row needs, and the paper's figures."""

from dataclasses import dataclass

TECHNICAL, AESTHETIC, ALIGNMENT = "technical", "aesthetic", "alignment"
ALL_BRANCHES = (TECHNICAL, AESTHETIC, ALIGNMENT)
NO_ADAPTER = "no_adapter"  # folder of the initial model without its adapter


@dataclass(frozen=True)
class Training:
    """One run of a stage.

    Args:
        stage: 1, 2 or 3.
        after: the training whose model it starts from, or `NO_ADAPTER`; None for the initial model.
        options: options of the stage in addition to its YAML file.
    """

    stage: int
    after: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row of a table: some branches of a trained model, and the paper's figures for them."""

    label: str
    training: str
    branches: tuple[str, ...]
    paper: dict[str, float]

    @property
    def evaluation(self) -> str:
        """Name of the folder of the evaluation. Rows with the same training and branches share it."""
        return f"{self.training}-{'-'.join(self.branches)}"


@dataclass(frozen=True)
class Table:
    """A table of the paper, with the metrics that it prints."""

    title: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = ("srocc", "plcc")


def _paper(srocc: float, plcc: float) -> dict[str, float]:
    return {"srocc": srocc, "plcc": plcc}


TRAININGS = {
    "stage1": Training(1),
    "stage1_technical": Training(1, options=("--branches", TECHNICAL)),
    "stage1_aesthetic": Training(1, options=("--branches", AESTHETIC)),
    "stage2": Training(2, "stage1"),
    **{
        f"stage2_unfixed_{percent}": Training(2, "stage1", ("--unfixed_ratio", str(percent / 100)))
        for percent in (80, 60, 50, 40)  # 70 is the default of stage 2
    },
    "stage2_no_adapter": Training(2, NO_ADAPTER),
    "stage3": Training(3, "stage2"),
    "stage3_technical_alignment": Training(3, "stage2", ("--branches", TECHNICAL, ALIGNMENT)),
}
TABLES = {
    "2": Table(
        "Table 2, branches",
        (
            Row("technical", "stage1_technical", (TECHNICAL,), _paper(0.7465, 0.7614)),
            Row("aesthetic", "stage1_aesthetic", (AESTHETIC,), _paper(0.7322, 0.7488)),
            Row("alignment", "stage2", (ALIGNMENT,), _paper(0.8096, 0.8203)),
            Row("technical + aesthetic", "stage1", (TECHNICAL, AESTHETIC), _paper(0.7623, 0.7733)),
            Row("technical + alignment", "stage3_technical_alignment", (TECHNICAL, ALIGNMENT), _paper(0.8166, 0.8298)),
            Row("all", "stage3", ALL_BRANCHES, _paper(0.8241, 0.8352)),
        ),
    ),
    "4": Table(
        "Table 4, unfixed share of the encoders in stage 2",
        tuple(
            Row(
                f"{percent} %",
                "stage2" if percent == 70 else f"stage2_unfixed_{percent}",
                (ALIGNMENT,),
                {"main_score": main_score},
            )
            for percent, main_score in ((80, 0.8105), (70, 0.8140), (60, 0.8161), (50, 0.8145), (40, 0.8154))
        ),
        ("main_score",),
    ),
    "5": Table(
        "Table 5, adapter",
        (
            Row("none", "stage2_no_adapter", (ALIGNMENT,), _paper(0.7910, 0.8089)),
            Row("ST-Adapter", "stage2", (ALIGNMENT,), _paper(0.8096, 0.8203)),
        ),
    ),
    "6": Table(
        "Table 6, stages",
        (
            Row("1", "stage1", (TECHNICAL, AESTHETIC), _paper(0.7623, 0.7733)),
            Row("2", "stage2", (ALIGNMENT,), _paper(0.8096, 0.8203)),
            Row("1+2", "stage2", ALL_BRANCHES, _paper(0.8102, 0.8244)),
            Row("1+2+3", "stage3", ALL_BRANCHES, _paper(0.8241, 0.8352)),
        ),
    ),
}
