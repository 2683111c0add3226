"""A document and its pictures -> the folder of a report, and the list of all reports."""

import hashlib
from pathlib import Path
from urllib.parse import quote

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write, sweep_dead
from sagan_bench.core.stored import UNFIT, refuse_special
from sagan_bench.report import answers, page
from sagan_bench.report.document import AnyDocument, not_a_report, read
from sagan_bench.report.pictures import Files, unshowable
from sagan_bench.report.sections._base import blocks, theme_of
from sagan_bench.runs.run_directory import readable

PAGE, DATA, JSON = "index.html", "data", "report.json"


def publish(document: AnyDocument, pictures: Files, folder: Path) -> Path:
    """Write the page, and beside it ``data/``; return the page's path.

    Pictures and figures of an earlier report that are no longer shown are removed.

    Raises:
        UserError: the folder holds files that no report left.
    """
    data = folder / DATA
    _refuse_other(folder)
    document = document.model_copy(update={"pictured": _digests(pictures)})
    theme = theme_of(document, lambda name: pictures[name])
    shown = blocks(document, theme)
    texts = {JSON: document.to_json()} | {
        name: text for export in page.exports(shown) for name, text in export.files.items()
    }
    figures = {
        name: content
        for block in shown
        for chart in block.charts()
        for name, content in chart.files().items()
    }
    contents = {**pictures, **figures, **{name: text.encode() for name, text in texts.items()}}
    html = page.render(document, shown, theme)  # all of it before anything is written
    data.mkdir(parents=True, exist_ok=True)
    for old in (*data.glob("*.png"), *data.glob("film-*"), *data.glob("fig-*")):
        if old.name not in contents:
            old.unlink()
    for swept in (folder, data):
        sweep_dead(swept)
    for name in sorted(contents, key=lambda name: name != JSON):  # by which the folder is known
        atomic_write(data / name, contents[name])
    atomic_write(folder / PAGE, html.encode())
    return folder / PAGE


def again(file: Path, folder: Path | None = None) -> tuple[AnyDocument, Path]:
    """Make the page again from a report's ``report.json``; return it with the page's path.

    Args:
        file: the ``report.json``, its pictures beside it.
        folder: of the page; by default that in whose ``data`` the file is.

    Raises:
        UserError: the file is damaged or of a newer schema, or a picture is missing.
    """
    document, pictures = _whole(file)
    try:
        return document, publish(document, pictures, folder or file.resolve().parent.parent)
    except UNFIT as error:
        raise not_a_report(file, error) from error


def _whole(file: Path) -> tuple[AnyDocument, Files]:
    """Return a report and its pictures.  Raises `UserError` unless they go together."""
    document = read(file)
    names = [picture.file for picture in document.pictures]
    pictures = {name: _content(file.parent / name) for name in names}
    for name, digest in _digests(pictures).items():
        if document.pictured.get(name, digest) != digest:
            where = file.parent / name
            raise UserError(f"a picture of the report is not what was written: {where}")
    return document, pictures


def _digests(pictures: Files) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in pictures.items()}


def _content(file: Path) -> bytes:
    """Return a picture; a link would be a picture of elsewhere."""
    if file.is_symlink():
        raise UserError(f"a picture of the report is a link: {file}; put the picture there")
    try:
        refuse_special(file)
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"a picture of the report is missing: {file}: {error.strerror}") from error
    if why := unshowable(content):
        raise UserError(f"a picture of the report is damaged: {file}: {why}")
    return content


def _refuse_other(folder: Path) -> None:
    if _is_foreign(folder):
        raise UserError(f"{folder} holds files that no report left; choose another --out")


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder holds files, and not those of a report or of one that was begun."""
    if not folder.is_dir() or (folder / DATA / JSON).exists():
        return False
    begun = {DATA} if not any((folder / DATA).glob("[!.]*")) else set()
    return any(file.name not in begun for file in folder.iterdir())


def list_reports(root: Path) -> Path:
    """Write ``index.html`` of the reports in a folder, the newest first; return its path."""
    files = sorted(root.glob(f"*/{DATA}/{JSON}"))
    whole = readable(files, lambda file: _whole(file)[0])
    whole.sort(key=lambda pair: (pair[1].finished_at or "", pair[0].parents[1].name), reverse=True)
    sweep_dead(root)
    atomic_write(
        root / PAGE,
        page.render_list(
            _listed(file.parents[1].name, document) for file, document in whole
        ).encode(),
    )
    return root / PAGE


def _listed(name: str, document: AnyDocument) -> dict[str, object]:
    tone, answer = answers.answer(document)
    return {
        "href": f"{quote(name)}/{PAGE}",
        "name": document.name,
        "question": document.question,
        "status": document.status,
        "tone": tone,
        "answer": answer,
        "runs": document.runs_over,
        "finished_at": document.finished_at,
    }
