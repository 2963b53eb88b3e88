"""MIND-small (Wu et al., ACL 2020): news shown to 94,057 users, and which news they clicked.

Its licence must be accepted at https://msnews.github.io, so it is downloaded by hand. Two releases are read, ``train``
and ``dev``, each with two files, with tabs between fields and no header::

    behaviors.tsv   impression id, user, time (11/11/2019 9:05:58 AM), history (N1 N2 …), impressions (N3-1 N4-0 …)
    news.tsv        news id, category, subcategory, title, abstract, URL, entities of the title, of the abstract

Rows are

- every item shown, with label 1 if it was clicked. With ``split=given`` rows of ``train`` are in training; the users of
  ``dev`` are divided between validation and test by a seeded hash. (This division is a choice of this project: a user's
  impressions stay together, and no user is in both validation and test.) With ``split=time`` the impressions are split
  by their time, and ``dev`` may be missing.
- every pair of a user and an item of the user's interaction histories, once, with label 1, in the training split
  (paper, section 4.1). The histories of validation and test count as well: they are clicks before these impressions,
  and without them training would contain few of their users. A pair that validation or test also shows is left out, so
  that no history reveals the label of a row to be predicted.

With ``history=N`` the interaction history is a column of every row instead: the user's last N clicks, the newest last,
with the ids of the items. Its pairs are then no rows. A history holds only clicks before the impression: within a
release it is the same at all impressions of a user, so that clicks on these are not in it.

Requests are the impressions, ``train-1``, …, ``dev-1``, …; the request of a row of a history is the line from which it
is read, ``train-1-history``.

The paper's Table 1 counts 9,993,270 samples, 1,408,828 more than both releases show (8,584,442 according to the card of
reczoo/MIND_small_x1); the additional ones are the histories.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import acquire
from data_pipeline.preparation.columns import FILE, ITEM, Columns
from data_pipeline.preparation.delimited import delimited_scan, line_form
from data_pipeline.preparation.interactions import InteractionRules
from data_pipeline.preparation.lists import NO_LISTS, ListColumns
from data_pipeline.preparation.malformed import malformed_lines, warn_of_malformed_lines
from data_pipeline.preparation.read import Rule, Source, ingest
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.split import SplitRule, seeded_hash, shares
from data_pipeline.preparation.workspace import Workspace, literal
from data_pipeline.schema import SPLITS, Schema
from data_pipeline.types import PositiveInt

PARTS = ("train", "dev")
_BEHAVIORS = ("impression_id", "user_id", "time", "history", "impressions")
_NEWS = ("news_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
_HISTORY = "history"
_SHOWN = "regexp_split_to_array(trim(coalesce(impressions, '')), ' +')"
_RULES = (
    Rule(
        "impressions",
        "an item shown is not of the form N123-1 or N123-0",
        "impressions IS NOT NULL AND NOT regexp_full_match(impressions, '.+-[01]')",
    ),
    Rule("time", "time is not of the form 11/11/2019 9:05:58 AM", "shown_at IS NULL"),
)


@dataclass(frozen=True, kw_only=True)
class MINDSmall(Interactions):
    """Clicks as labels. Categories: category and subcategory of the news.

    Attributes:
        source: A folder with the releases, zipped or not: MINDsmall_train.zip and MINDsmall_dev.zip, or folders whose
            names end in train and dev. With ``split=time`` one of the two is enough, also as the folder itself.
        ratios: With the given split, only the last two are used: they divide the users of ``dev``.
        history: The greatest length of the column of interaction histories; None: histories are rows of training.
    """

    source: str
    history: PositiveInt | None = None
    published: ClassVar[dict[str, int]] = {
        "users": 94_057,
        "items": 65_238,
        "interactions": 1_756_555,
        "samples": 9_993_270,
    }  # paper, Table 1

    @property
    def columns(self) -> Columns:
        lists = NO_LISTS
        if self.history is not None:
            lists = ListColumns((_HISTORY,), {_HISTORY: "item_id"}, separator=" ", longest=self.history)
        return Columns(
            user="user_id",
            item="item_id",
            label="label",
            time="shown_at",
            request="request",
            split="split",
            lists=lists,
        )

    @property
    def rules(self) -> InteractionRules:
        """The settings with their defaults resolved; the published counts are those of rows with histories."""
        rules = super().rules
        return rules if self.history is None else replace(rules, published={})

    def check(self) -> None:
        """Refuse settings as other data sets do, and a split that would evaluate on positives of the histories."""
        super().check()
        if self.split_by not in ("given", "time") and not self.is_implicit and self.history is None:
            raise DataError(
                f"data.split = {self.split_by}: the pairs of the interaction histories, all of them positive, belong to"
                " training. Set data.split=given or time, or data.history=50, which makes them a column"
            )

    @property
    def uses_ratios(self) -> bool:
        """Whether ratios are used: the given split divides the users of ``dev`` by the last two."""
        return super().uses_ratios or self.split_by == "given"

    @property
    def split_rule(self) -> SplitRule:
        """Return the rule; by time, the reader itself splits, since only impressions have a time."""
        rule = super().split_rule
        return replace(rule, by="given") if rule.by == "time" else rule

    def prepare(self, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
        schema, report = super().prepare(workspace, folder, name)
        return schema, replace(report, split="time", validation="split") if self.split == "time" else report

    def read(self, workspace: Workspace) -> Source:
        folders = self._releases(workspace)
        self._ingest(workspace, folders, "behaviors", _BEHAVIORS)
        self._ingest(workspace, folders, "news", _NEWS)
        warn_of_malformed_lines(workspace, self.on_invalid, "news")
        workspace.on_progress("reading the items shown and the interaction histories")
        self._type_lines(workspace)
        _list_shown(workspace)
        if self.history is None:
            _list_histories(workspace)
        news = """
            SELECT news_id AS original_id, arg_min(category, rowid) AS category,
                arg_min(subcategory, rowid) AS subcategory
            FROM news GROUP BY news_id"""  # the releases share news; the first line is kept
        return Source(
            self.source,
            text=False,
            dropped=malformed_lines(workspace, self.on_invalid, "behaviors"),
            rules=_RULES,
            position="line",
            categories={ITEM: news},
        )

    def _releases(self, workspace: Workspace) -> dict[str, Path]:
        """Find the folders with the files: of both releases or, to be split by time, of those that are there."""
        root = Path(self.source)
        if self.split != "time":
            return {part: self._release(workspace, part) for part in PARTS}
        if (root / "behaviors.tsv").is_file() and (root / "news.tsv").is_file():
            return {"train": root}
        there = [part for part in PARTS if root.is_dir() and _named(root, part)]
        return {part: self._release(workspace, part) for part in there or PARTS}

    def _release(self, workspace: Workspace, part: str) -> Path:
        """Find the folder with the two files of a release; a folder is preferred to a zip."""
        root = Path(self.source)
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder. Download MINDsmall_train.zip and MINDsmall_dev.zip (https://msnews.github.io)"
                f" and pass their folder: data.source=FOLDER; relative paths start at {Path.cwd()}"
            )
        found = _named(root, part)
        if not found:
            raise DataError(
                f"{root}: contains no MINDsmall_{part}.zip and no folder whose name ends in {part}. Add it, or"
                " split the impressions of one release by their time: data.split=time"
            )
        chosen = min(found, key=lambda path: (not path.is_dir(), path.name))
        workspace.reads(chosen)
        unpacked, _ = acquire(str(chosen), (), workspace.scratch / part, workspace.on_progress)
        files = sorted(unpacked.rglob("behaviors.tsv"))
        if not files or not files[0].with_name("news.tsv").is_file():
            raise DataError(f"{chosen}: contains no folder with behaviors.tsv and news.tsv. Download it again")
        return files[0].parent

    def _ingest(self, workspace: Workspace, folders: dict[str, Path], name: str, fields: Sequence[str]) -> None:
        """Read the files of both releases into the table ``name``, with the columns ``part`` and ``line``."""
        scans = []
        for part, folder in folders.items():
            path = folder / f"{name}.tsv"
            scan = delimited_scan(path, fields, "\t", fields, header=False, on_invalid=self.on_invalid)
            numbered = f"SELECT *, {literal(part)} AS part, row_number() OVER () AS line FROM ({scan})"
            scans.append((path, numbered))
        ingest(workspace, scans, table=name, form=line_form(fields, "\t"), on_invalid=self.on_invalid)

    def _type_lines(self, workspace: Workspace) -> None:
        """Create the view ``lines``: the impressions with their time, split and position among all impressions."""
        workspace.query(f"""
            CREATE VIEW timed AS
            SELECT * EXCLUDE (part), rowid AS position, part || '-' || impression_id AS request, part,
                try_strptime(time, '%m/%d/%Y %I:%M:%S %p') AS shown_at,
                CASE WHEN shown_at IS NULL THEN 0 ELSE len({_SHOWN}) END AS shown
            FROM behaviors""")
        workspace.query(f"""
            CREATE VIEW lines AS
            SELECT * EXCLUDE (part, shown, __position, __count), {self._split(workspace.seed)} AS split
            FROM (
                SELECT *, sum(shown) OVER () AS __count,
                    sum(shown) OVER (ORDER BY shown_at) - sum(shown) OVER (PARTITION BY shown_at) AS __position
                FROM timed
            )""")

    def _split(self, seed: int) -> str:
        """Return SQL for the name of an impression's split; by time, `SplitRule` says how positions are divided."""
        if self.split == "time":
            return f"{list(SPLITS)}[CASE {shares('time', self.ratios)} ELSE 0 END + 1]"
        _, validation, test = self.ratios
        is_validation = f"{seeded_hash(seed, 'dev', 'user_id')} % {validation + test} < {validation}"
        return f"CASE WHEN part = 'train' THEN 'train' WHEN {is_validation} THEN 'validation' ELSE 'test' END"


def _named(root: Path, part: str) -> list[Path]:
    found = [path for path in root.iterdir() if path.stem.endswith(part)]
    return [path for path in found if path.is_dir() or path.suffix.lower() == ".zip"]


def _list_shown(workspace: Workspace) -> None:
    """Create ``raw`` with a row per item shown, in order of the files."""
    workspace.query(f"""
        CREATE TABLE raw AS
        SELECT user_id, left(impressions, -2) AS item_id, TRY_CAST(right(impressions, 1) AS TINYINT) AS label, shown_at,
            split, request, time, impressions, line, {FILE},
            list_filter(regexp_split_to_array(trim(coalesce(history, '')), ' +'), lambda item: item <> '') AS {_HISTORY}
        FROM (
            SELECT * REPLACE (unnest({_SHOWN}) AS impressions), generate_subscripts({_SHOWN}, 1) AS place FROM lines
        )
        ORDER BY position, place""")


def _list_histories(workspace: Workspace) -> None:
    """Add to ``raw`` the pairs of the histories, each from the first line that has it."""
    workspace.query(f"""
        INSERT INTO raw
        SELECT user_id, item_id, 1, shown_at, 'train', request || '-history', time, NULL, line, {FILE}, NULL
        FROM (
            SELECT user_id, item_id, min(position) AS position
            FROM (
                SELECT user_id, unnest(regexp_split_to_array(trim(history), ' +')) AS item_id, position
                FROM (SELECT user_id, history, min(position) AS position FROM lines GROUP BY user_id, history)
            )
            WHERE item_id <> ''
            GROUP BY user_id, item_id
        )
        JOIN (SELECT * EXCLUDE (user_id) FROM lines) USING (position)
        ANTI JOIN (SELECT user_id, item_id FROM raw WHERE split <> 'train') USING (user_id, item_id)
        ORDER BY position, item_id""")
