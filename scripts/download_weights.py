"""Fetch the networks of the paper. Each is verified by loading it before it gets its name.

Without NAME: print the table. A download that broke is continued by the same command.
"""

import argparse
import shutil
import sys
import tarfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import yaml
from tqdm import tqdm

from ace_counterfactuals.core.base.settings import FlagError, did_you_mean
from ace_counterfactuals.core.cli.parsing import Parser, run_script

TABLE = Path(__file__).with_name("weights.yaml")
DATA = """
What is fetched is loaded as the network that it should be, and its SHA-256 is printed.
Data sets are never fetched: CelebA, CelebA-HQ, BDD100k, BDD-OIA and ImageNet each want their own terms accepted by a
person. Where to get them and how to lay them out is in docs/datasets."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """An entry of the table; its comment says what each field is."""

    file: str
    page: str
    network: str
    flag: str
    url: str = ""
    members: tuple[str, ...] = ()
    sha256: str = ""
    preset: str = ""
    dataset: str = ""
    why: str = ""


def main(argv=None) -> int:
    parser = Parser(
        prog="download-weights.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the table; 'all' is every one")
    parser.add_argument("--to", metavar="DIR", help="folder for the files: --models of scripts/celeba.sh and others")
    parser.add_argument("--from", metavar="URL", dest="url", help="take it from this address; for one NAME")
    parser.add_argument("--table", metavar="FILE", default=TABLE, help="another table (default scripts/weights.yaml)")
    given = parser.parse_intermixed_args(argv)
    table = read_table(Path(given.table))
    if not given.names:
        for name, entry in table.items():
            print(f"{name:22}{entry.flag:56}{entry.url or f'by hand: {entry.page}'}")
        print(DATA)
        return 0
    chosen = list(table) if given.names == ["all"] else given.names
    for name in chosen:
        if name not in table:
            raise ValueError(f"{name}: no such weights{did_you_mean(name, table, otherwise='see the table')}")
    if not given.to:
        raise FlagError("to", "is not given: the folder for the files")
    if given.url and len(chosen) > 1:
        raise FlagError("from", "is the address of one file; give one NAME")
    folder = Path(given.to).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    code = 0
    for name in chosen:
        try:
            print(f"{name}: {obtain(table[name], folder, given.url or table[name].url)}")
        except ValueError as error:
            print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
            code = 2
    return code


def read_table(path: Path) -> dict[str, Weights]:
    """Name -> entry.  Raises FlagError for a file that is no such table."""
    try:
        return {name: Weights(**fields) for name, fields in yaml.safe_load(path.read_text()).items()}
    except (AttributeError, TypeError, yaml.YAMLError) as error:
        raise FlagError("table", f"{path}: {error}") from None


def obtain(entry: Weights, folder: Path, url: str) -> str:
    """Leave the file, verified, in ``folder``; what it is.  Raises ValueError."""
    target = folder / entry.file
    if target.exists():
        return f"{target} is there; {verify(target, entry)}"
    if not url:
        raise ValueError(
            f"has to be fetched by hand: {entry.why}. Open {entry.page} and save the file as {target}; the same "
            f"command then verifies it. Or copy its address: --to {folder} --from ADDRESS"
        )
    archive = folder / PurePosixPath(urlsplit(url).path).name
    part = folder / f"{entry.file}.part"
    if entry.members and archive.name.endswith((".tar.gz", ".tgz")):  # kept: other entries have their files in it
        if not archive.exists():
            fetch(url, folder / f"{archive.name}.part", entry.page)
            (folder / f"{archive.name}.part").replace(archive)
        extract(archive, entry.members, part)
    else:
        fetch(url, part, entry.page)
    try:
        said = verify(part, entry, entry.sha256 if url == entry.url else "")
    except ValueError as error:
        part.unlink()
        raise ValueError(f"{error}; removed") from None
    part.replace(target)
    return f"{target} {said}; give it as {entry.flag}"


def fetch(url: str, part: Path, page: str) -> None:
    """The file behind ``url``, continuing what is there of it.  Raises ValueError, which names its ``page``."""
    print(f"fetching {url}", file=sys.stderr, flush=True)
    have = part.stat().st_size if part.exists() else 0
    try:
        with urlopen(Request(url, headers={"Range": f"bytes={have}-"} if have else {}), timeout=60) as answer:
            start, length = (have if answer.status == 206 else 0), answer.length
            total = None if length is None else start + length
            with (
                open(part, "ab" if start else "wb") as file,
                tqdm.wrapattr(file, "write", total=total, initial=start, disable=None) as shown,
            ):
                shutil.copyfileobj(answer, shown)
        if total in (None, part.stat().st_size):
            return
        reason = "it broke off"
    except (OSError, HTTPException) as error:
        if (
            have and getattr(error, "code", 0) == 416
        ):  # nothing is left: it was stopped between its end and its renaming
            return
        reason = str(error)
    kept = part.stat().st_size if part.exists() else 0
    here = f"; {kept:,} bytes are kept, the same command continues" if kept else ""
    raise ValueError(f"{url} could not be fetched: {reason}{here}. Its page is {page}; see also --from")


def extract(archive: Path, members: tuple[str, ...], unpacked: Path) -> None:
    """The one file of the archive whose path ends as a member says; nothing else is unpacked."""
    try:
        with tarfile.open(archive) as tar:
            files = [item for item in tar if item.isfile()]
            for wanted in members:
                fitting = [item for item in files if PurePosixPath(item.name).match(wanted)]
                if len(fitting) == 1:
                    with tar.extractfile(fitting[0]) as source, open(unpacked, "wb") as target:
                        shutil.copyfileobj(source, target)
                    return
    except (tarfile.TarError, EOFError, zlib.error) as error:
        unpacked.unlink(missing_ok=True)
        archive.unlink()
        raise ValueError(f"{archive} is no whole archive ({error}); removed, fetch it again") from None
    listed = ", ".join(item.name for item in files[:10]) or "no file"
    raise ValueError(f"{archive} holds {listed}; wanted one {' or '.join(members)}")


def verify(path: Path, entry: Weights, sha256: str = "") -> str:
    """Load the file as the network that it should be.  Raises ValueError if it is another or none."""
    from ace_counterfactuals.core.data.datasets import spec_of
    from ace_counterfactuals.models.classifiers import load_classifier
    from ace_counterfactuals.models.denoisers import load_denoiser
    from ace_counterfactuals.models.judges import load_inception, load_oracle, load_simsiam, load_vggface2
    from ace_counterfactuals.models.loading import describe, digest, load_state

    found = digest(path)
    if not found.startswith(sha256):
        raise ValueError(f"has the SHA-256 {found}, wanted {sha256}")
    state = load_state(path)
    if entry.network == "unet":
        load_denoiser(path, entry.preset)
    elif entry.network == "classifier":
        wanted = spec_of(entry.dataset).classifier()
        load_classifier(path, query=next(iter(wanted["heads"]), None), **wanted)
    elif entry.network == "oracle":
        load_oracle(path, of=spec_of(entry.dataset).oracle)
    else:
        {"vggface2": load_vggface2, "simsiam": load_simsiam, "inception": load_inception}[entry.network](path)
    return f"loads as {describe(state)}, SHA-256 {found}"


if __name__ == "__main__":
    run_script(main)
