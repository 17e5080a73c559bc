"""Fetch the networks of the paper. Each is verified by loading it before it gets its name.

Without NAME: print the table. A download that broke is continued by the same command. Needs curl.
"""

import argparse
import difflib
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import yaml

from ace_counterfactuals.core.base.settings import FlagError
from ace_counterfactuals.core.cli.parsing import Parser, run_script

TABLE = Path(__file__).with_name("weights.yaml")
ATTEMPTS = 5  # as long as each brings the download further
BROKEN = {18: "it ended early", 28: "it stalled", 52: "it sent nothing", 56: "it broke off"}  # curl's exit codes
STALLED = ("--connect-timeout", "30", "--speed-limit", "1", "--speed-time", "60")
HTTP_ERROR, NO_RANGES = 22, 33
DATA = """\
Data sets are never fetched: CelebA, CelebA-HQ, BDD100k, BDD-OIA and ImageNet each want their own terms accepted by a
person. Where to get them and how to lay them out is in docs/datasets."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """An entry of the table; its comment says what each field is."""

    name: str
    file: str
    page: str
    network: str
    flag: str
    url: str = ""
    members: tuple[str, ...] = ()
    bytes: int | None = None
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
        print_table(table)
        return 0
    chosen = list(table) if given.names == ["all"] else given.names
    for name in chosen:
        if name not in table:
            close = difflib.get_close_matches(name, table, 1)
            raise ValueError(f"{name}: no such weights; " + (f"did you mean {close[0]}?" if close else "see the table"))
    if not given.to:
        raise FlagError("to", "is not given: the folder for the files")
    if given.url and len(chosen) > 1:
        raise FlagError("from", "is the address of one file; give one NAME")
    folder = Path(given.to).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return max(obtain(table[name], folder, given.url or table[name].url) for name in chosen)


def read_table(path: Path) -> dict[str, Weights]:
    """Name -> entry.  Raises FlagError for a file that is no such table."""
    try:
        return {name: Weights(name=name, **fields) for name, fields in yaml.safe_load(path.read_text()).items()}
    except (AttributeError, TypeError, yaml.YAMLError) as error:
        raise FlagError("table", f"{path}: {error}") from None


def print_table(table: Mapping[str, Weights]) -> None:
    rows = [("NAME", "SIZE", "SHA-256", "FLAG", "ADDRESS")]
    for entry in table.values():
        size = f"{entry.bytes:,}" if entry.bytes else "-"
        rows.append((entry.name, size, entry.sha256 or "-", entry.flag, entry.url or f"by hand: {entry.page}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print("\n-: not known. What is fetched is loaded as the network that it should be, and its SHA-256 is printed.")
    print(DATA)


def obtain(entry: Weights, folder: Path, url: str) -> int:
    """Leave the file, verified, in ``folder``, or say why not. Returns the exit code."""
    target = folder / entry.file
    try:
        if target.exists():
            print(f"{entry.name}: {target} is there; {verify(target, entry)}")
            return 0
        if not url:
            raise ValueError(
                f"has to be fetched by hand: {entry.why}. Open {entry.page} and save the file as {target}; the same "
                f"command then verifies it. Or copy its address: --to {target.parent} --from ADDRESS"
            )
        fetched = download(entry, folder, url)
        if entry.members and fetched != target:
            fetched = extract(fetched, entry.members, target.with_name(f"{target.name}.unpacked"))
        print(f"{entry.name}: {target} {name_verified(fetched, target, entry)}; give it as {entry.flag}")
    except ValueError as error:
        print(f"{entry.name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def download(entry: Weights, folder: Path, url: str) -> Path:
    """The whole file behind ``url``, of the size and digest that are known; an archive by its own name."""
    is_archive = bool(entry.members) and urlsplit(url).path.endswith((".tar.gz", ".tgz"))
    archive = folder / PurePosixPath(urlsplit(url).path).name
    if is_archive and archive.exists():
        return archive
    part = folder / f"{archive.name if is_archive else entry.file}.part"
    print(f"{entry.name}: fetching {url}", file=sys.stderr, flush=True)
    fetch(url, part, entry)
    if url == entry.url:
        check_bytes(part, entry)
    return part.replace(archive) if is_archive else part


def fetch(url: str, part: Path, entry: Weights) -> None:
    """curl to ``part``, continuing what is there of it."""
    for _ in range(ATTEMPTS):
        before = size(part)
        code, status = curl(url, part)
        if code == 0:
            return
        if status == "416" and before:  # nothing is left to fetch: it was stopped between its end and its renaming
            return
        if code == NO_RANGES:
            part.unlink()
        elif code not in BROKEN or size(part) <= before:
            break
    if code == HTTP_ERROR:
        reason = f"the server answers {status}"
    else:
        reason = BROKEN.get(code, f"curl ends with exit code {code}")
    here = f"; {size(part):,} bytes are kept, the same command continues" if size(part) else ""
    raise ValueError(f"{url} could not be fetched: {reason}{here}. Its page is {entry.page}; see also --from")


def curl(url: str, part: Path) -> tuple[int, str]:
    """curl's exit code and the HTTP status."""
    shown = ["--progress-bar"] if sys.stderr.isatty() else ["--silent", "--show-error"]
    command = ["curl", "--fail", "--location", "--proto", "=http,https", *shown, *STALLED]
    command += ["--continue-at", "-", "--output", str(part), "--write-out", "%{http_code}", "--url", url]
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise ValueError("curl is needed and not there; install it") from None
    return result.returncode, result.stdout


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def check_bytes(part: Path, known: Weights) -> None:
    """Remove the file if it is not what the table says lies there."""
    from ace_counterfactuals.models.loading import digest

    reason = ""
    if known.bytes and size(part) != known.bytes:
        reason = f"has {size(part):,} bytes, wanted {known.bytes:,}; removed, fetch it again"
    elif known.sha256 and not (found := digest(part)).startswith(known.sha256):
        reason = f"has the SHA-256 {found}, wanted {known.sha256}; removed, since it is another file"
    if reason:
        part.unlink()
        raise ValueError(reason)


def extract(archive: Path, members: tuple[str, ...], unpacked: Path) -> Path:
    """The one file of the archive whose path ends as a member says; nothing else is unpacked."""
    try:
        with tarfile.open(archive) as tar:
            files = [item for item in tar if item.isfile()]
            for wanted in members:
                fitting = [item for item in files if PurePosixPath(item.name).match(wanted)]
                if len(fitting) == 1:
                    with tar.extractfile(fitting[0]) as source, open(unpacked, "wb") as target:
                        shutil.copyfileobj(source, target)
                    return unpacked
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        unpacked.unlink(missing_ok=True)
        archive.unlink()
        raise ValueError(f"{archive} is no whole archive ({error}); removed, fetch it again") from None
    listed = ", ".join(item.name for item in files[:10]) or "no file"
    raise ValueError(f"{archive} holds {listed}; wanted one {' or '.join(members)}")


def name_verified(part: Path, target: Path, entry: Weights) -> str:
    """Give the file its name if it is the network that it should be, else remove it; what it is."""
    try:
        said = verify(part, entry)
    except ValueError as error:
        part.unlink()
        raise ValueError(f"{error}; removed") from None
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    part.replace(target)
    return said


def verify(path: Path, entry: Weights) -> str:
    """Load the file as the network that it should be.  Raises ValueError if it is another or none."""
    from ace_counterfactuals.core.data.datasets import spec_of
    from ace_counterfactuals.models.classifiers import load_classifier
    from ace_counterfactuals.models.inception import load_inception
    from ace_counterfactuals.models.loading import describe, digest, load_state
    from ace_counterfactuals.models.oracles import load_oracle
    from ace_counterfactuals.models.simsiam import load_simsiam
    from ace_counterfactuals.models.vggface2 import load_vggface2

    loaders = {"vggface2": load_vggface2, "simsiam": load_simsiam, "inception": load_inception}
    state = load_state(path)
    if entry.network == "unet":
        check_unet(state, entry.preset, path)
    elif entry.network == "classifier":
        wanted = spec_of(entry.dataset).classifier()
        load_classifier(path, query=next(iter(wanted["heads"]), None), **wanted)
    elif entry.network == "oracle":
        load_oracle(path, of=spec_of(entry.dataset).oracle)
    elif entry.network in loaders:
        loaders[entry.network](path)
    else:
        raise ValueError(f"network {entry.network} is not known to this script")
    return f"loads as {describe(state)}, SHA-256 {digest(path)}"


def check_unet(state: Mapping, preset: str, path: Path) -> None:
    """A whole U-Net, which fits the flags of the preset where there is one."""
    from ace_counterfactuals.guided_diffusion.checkpoint import suggest_flags
    from ace_counterfactuals.models.denoisers import load_denoiser

    told = {} if preset else suggest_flags(state, 256, str(path))
    told.pop("num_classes", None)
    load_denoiser(path, preset, **told)


if __name__ == "__main__":
    run_script(main)
