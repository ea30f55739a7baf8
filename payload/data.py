"""Rows to train on, from files, folders or the hub: every one checked before a model loads.

    rows = data.read("data/train.jsonl", data_config)       # [Row(file, number, fields)]
    train, held_out = data.load(data_config, seed, data.check_labelled)

What can't be used ends the run with 2 and names the file, the row and what the row says. Nothing here needs torch.
A hub name may carry a revision: `stanfordnlp/imdb@e6281661ce1c48d982bc483cf8a173c1bbeb5d31`.
"""

import csv
import json
import random
import re
from pathlib import Path
from typing import NamedTuple

from report import EXIT_CONFIG, leave

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?")
ROLES = ("system", "developer", "user", "assistant", "tool")
SHOWN = 160  # characters of a row in an error
csv.field_size_limit(2**24)  # the default of 128 KiB is less than a long article


class Row(NamedTuple):
    """One row and where it stands: `number` is the line in a text file, else the count from 1."""

    file: str
    number: int
    fields: dict

    def fail(self, fault):
        """End the run with 2 and show the row."""
        text = json.dumps(self.fields, ensure_ascii=False, default=str)
        leave(EXIT_CONFIG, f"{self.file}, row {self.number}: {fault}: {_short(text)}")


def _short(text):
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


# --- reading


def read(source, config, split=None):
    """Read all rows of a file, a folder of files or a hub dataset."""
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not files:
            leave(EXIT_CONFIG, f"{source}: no data file in this folder; known are {' '.join(SUFFIXES)}")
    else:
        files = [path] if path.exists() or _looks_like_a_path(source) else []
    found = (
        [row for file in files for row in _read_file(file, config)] if files else list(_read_hub(source, config, split))
    )
    if not found:
        leave(EXIT_CONFIG, f"{source}: it has no rows")
    return found


def _looks_like_a_path(source):
    suffix = source.lower().endswith(SUFFIXES)
    return suffix or source.startswith((".", "/", "~", "data/")) or not HUB_NAME.fullmatch(source)


def _read_file(path, config):
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    readers |= {".txt": _text, ".md": _text}
    reader = readers.get(path.suffix.lower())
    if not path.is_file():
        leave(EXIT_CONFIG, f"{path}: no such file")
    if reader is None:
        leave(EXIT_CONFIG, f"{path}: unknown kind of file; known are {' '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        leave(EXIT_CONFIG, f"{path}: the file is empty")
    try:
        return list(reader(path, config))
    except UnicodeDecodeError as error:
        leave(EXIT_CONFIG, f"{path}: not UTF-8 text ({error.reason} at byte {error.start})")
    except OSError as error:
        leave(EXIT_CONFIG, f"{path}: can't be read ({error.strerror})")


def _jsonl(path, _config):
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                leave(EXIT_CONFIG, f"{path}, row {number}: not UTF-8 text ({error.reason} at byte {error.start})")
            if text.strip():
                yield _object(path, number, text)


def _object(path, number, text):
    try:
        fields = json.loads(text)
    except ValueError as error:
        leave(EXIT_CONFIG, f"{path}, row {number}: not JSON ({error}): {_short(text.strip())}")
    if not isinstance(fields, dict):
        leave(EXIT_CONFIG, f'{path}, row {number}: not an object like {{"text": …}}: {_short(text.strip())}')
    return Row(str(path), number, fields)


def _json(path, _config):
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        leave(EXIT_CONFIG, f"{path}: not JSON ({error}); one object a line is called .jsonl")
    if not isinstance(content, list):
        leave(EXIT_CONFIG, f"{path}: a .json file of rows is a list of objects")
    for number, fields in enumerate(content, 1):
        if not isinstance(fields, dict):
            leave(EXIT_CONFIG, f"{path}, row {number}: not an object: {_short(json.dumps(fields))}")
        yield Row(str(path), number, fields)


def _csv(path, _config):
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            for fields in lines:
                row = Row(str(path), lines.line_num, {key: value for key, value in fields.items() if key is not None})
                if None in fields:
                    row.fail(f"{len(fields[None])} more values than the header has names")
                yield row
        except csv.Error as error:
            leave(EXIT_CONFIG, f"{path}, row {lines.line_num}: not CSV ({error})")


def _parquet(path, _config):
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches():
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(str(path), number, fields)
    except pa.ArrowException as error:
        leave(EXIT_CONFIG, f"{path}: not a Parquet file ({error})")


def _text(path, config):
    """A document ends at a blank line; in a file without any, each line is one."""
    lines = path.read_text("utf-8-sig").splitlines()
    paragraphs = any(not line.strip() for line in lines[:-1])
    document, start = [], 1
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            start, document = (number, [line]) if not document else (start, [*document, line])
        if document and (not paragraphs or not line.strip()):
            yield Row(str(path), start, {config["text_field"]: "\n".join(document)})
            document = []


def _read_hub(name, config, split):
    """Load a dataset of the hub; a class that is a number there gets its name back."""
    import datasets

    datasets.disable_progress_bars()
    repository, _, revision = name.partition("@")
    split = split or config["split"]
    try:
        table = datasets.load_dataset(repository, split=split, revision=revision or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # An offline hub, an unknown name, a gated set, a split that is not there: the library's words say which.
        reason = " ".join(str(error).split())
        leave(EXIT_CONFIG, f"{name} (split {split}): no such file here, and the hub did not give it: {reason}")
    names = getattr(table.features.get(config["label_field"]), "names", None)
    for number, fields in enumerate(table, 1):
        if names and isinstance(fields[config["label_field"]], int):
            fields[config["label_field"]] = names[fields[config["label_field"]]]
        yield Row(name, number, fields)


# --- checking


def text_of(row, field):
    """Give the text under a field; blank is allowed, missing and other types are not."""
    value = row.fields.get(field)
    if field not in row.fields:
        row.fail(f'no field "{field}"')
    if not isinstance(value, str):
        row.fail(f'"{field}" is {_kind(value)}, not a text')
    return value


def _kind(value):
    words = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return words.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")


def without_blank(rows, *fields):
    """Leave out rows where one of the fields is blank, and say how many; it is an error where none is left."""
    kept = [row for row in rows if all(not isinstance(row.fields[f], str) or row.fields[f].strip() for f in fields)]
    if len(kept) < len(rows):
        print(f"data: {len(rows) - len(kept)} of {len(rows)} rows have a blank {' or '.join(fields)} and are left out")
    if not kept:
        leave(EXIT_CONFIG, f"{rows[0].file}: every row has a blank {' or '.join(fields)}")
    return kept


def check_labelled(rows, config):
    """Check that every row has a text and a label; gives those that say something."""
    for row in rows:
        text_of(row, config["text_field"])
        label_of(row, config["label_field"])
    return without_blank(rows, config["text_field"], config["label_field"])


def label_of(row, field):
    """Give a row's class by name; whole numbers and true/false are names too."""
    value = row.fields.get(field)
    if field not in row.fields:
        row.fail(f'no field "{field}"')
    if not isinstance(value, (str, int)):
        row.fail(f'"{field}" is {_kind(value)}, not the name of a class')
    return str(value)


def classes_of(rows, field):
    """Name the classes in a fixed order: by number where all are numbers, else by alphabet."""
    names = {label_of(row, field) for row in rows}
    if len(names) < 2:
        leave(EXIT_CONFIG, f'{rows[0].file}: every row has the same "{field}", {names.pop()!r}: nothing to tell apart')
    if len(names) > max(2, len(rows) // 2):
        leave(EXIT_CONFIG, f'{rows[0].file}: {len(names)} different "{field}" in {len(rows)} rows: no classes')
    numeric = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=int) if numeric else sorted(names)


def check_known(rows, field, classes):
    """Check that held-out rows have no class that the training rows lack."""
    for row in rows:
        if label_of(row, field) not in classes:
            row.fail(f"the class {label_of(row, field)!r} is in no training row; known are {', '.join(classes)}")


def format_of(row, config):
    """Tell the format of a row from its fields, the richest first."""
    if config["format"] != "auto":
        return config["format"]
    if "messages" in row.fields:
        return "messages"
    if "prompt" in row.fields and "completion" in row.fields:
        return "prompt_completion"
    if config["text_field"] not in row.fields:
        row.fail(f'neither "messages", nor "prompt" and "completion", nor "{config["text_field"]}"')
    return "text"


def check_sft(rows, config):
    """Check every row against the format, which "auto" takes from the first row and keeps; gives rows without the rest.

    A text comes back under "text", whatever its field is called in the file.
    """
    kind = config["format"] = format_of(rows[0], config)
    if kind == "messages":
        return [row._replace(fields={"messages": _messages(row)}) for row in rows]
    names = {"prompt": "prompt", "completion": "completion"} if kind == "prompt_completion" else {}
    names = names or {"text": config["text_field"]}
    checked = [row._replace(fields={name: text_of(row, field) for name, field in names.items()}) for row in rows]
    return without_blank(checked, list(names)[-1])  # a prompt may be empty


def _messages(row):
    """Give the conversation of a row, role and content alone; an answer must be in it."""
    messages = row.fields.get("messages")
    if "messages" not in row.fields:
        row.fail('no field "messages"')
    if not isinstance(messages, list) or not messages:
        row.fail('"messages" is not a list of messages')
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            row.fail(f'a message is not an object with "role" and "content": {_short(str(message))}')
        if message["role"] not in ROLES:
            row.fail(f"the role {message['role']!r} is none of {', '.join(ROLES)}")
        if not isinstance(message["content"], str):
            row.fail(f"the content of a message is {_kind(message['content'])}, not a text")
    if all(message["role"] != "assistant" for message in messages):
        row.fail("no message is the assistant's: nothing to learn")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


# --- splitting


def load(config, seed, check):
    """Read, check and split: gives (training rows, held-out rows). `check(rows, config)` gives the rows to use."""
    train = check(read(config["train"], config), config)
    if config["max_rows"] and config["max_rows"] < len(train):
        train = hold_out(train, config["max_rows"], seed)[1]  # by chance: many files are sorted by class
    if config["eval"]:
        held_out = check(read(config["eval"], config, config["eval_split"]), config)
    elif config["eval_fraction"]:
        count = max(1, round(len(train) * config["eval_fraction"]))
        train, held_out = hold_out(train, count, seed)
    else:
        held_out = []
    print(f"data: {len(train)} rows to train on, {len(held_out)} held out", flush=True)
    return train, held_out


def hold_out(rows, count, seed):
    """Set `count` rows aside, the same for the same seed; both parts keep the file's order."""
    if count >= len(rows):
        leave(EXIT_CONFIG, f"{rows[0].file}: of {len(rows)} rows, {count} can't be held out")
    chosen = set(random.Random(seed).sample(range(len(rows)), count))  # noqa: S311 (a split, not a secret)
    held_out = [row for index, row in enumerate(rows) if index in chosen]
    return [row for index, row in enumerate(rows) if index not in chosen], held_out
