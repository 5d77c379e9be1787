"""ONNX Runtime for browsers, as its makers publish it for npm: fetched once, checked, kept.

npm (or a package file) --*files*--> {name: bytes}
"""

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from ketch.errors import InputError, NotInstalled

VERSION: Final = "1.30.0"
INTEGRITY: Final = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
NAMES: Final = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PACKAGE: Final = f"onnxruntime-web@{VERSION}"
MOST_SECONDS: Final = 300


def files(home: Path, package: str = "") -> dict[str, bytes]:
    """Give the files that a page needs, out of a package file, else what was kept, else what npm brings.

    Raises:
        NotInstalled: there is no npm to bring it.
        InputError: the package is another one.
    """
    kept = home / "cache" / f"onnxruntime-web-{VERSION}.tgz"
    if package:
        data = _read(Path(package))
    elif kept.is_file():
        data = kept.read_bytes()
    else:
        data = fetched()
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(".part")
        aside.write_bytes(data)
        aside.replace(kept)
    return unpacked(data)


def fetched() -> bytes:
    """Let npm bring the package from the registry that it is set up for.

    Raises:
        NotInstalled: there is no npm, or it does not reach its registry.
    """
    npm = shutil.which("npm")
    hint = f"Install Node.js with npm, or give the package: npm pack {PACKAGE}, then --runtime FILE.tgz"
    if npm is None:
        raise NotInstalled("This model needs ONNX Runtime in the browser, which npm brings", hint=hint)
    with tempfile.TemporaryDirectory(prefix="ketch-npm-") as folder:
        asked = [npm, "pack", PACKAGE, "--pack-destination", folder, "--silent"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, timeout=MOST_SECONDS, check=False, cwd=folder)
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"npm did not bring {PACKAGE} in {MOST_SECONDS} seconds", hint=hint) from None
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode or not found:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
            raise NotInstalled(f"npm does not bring {PACKAGE}: {said}", hint=hint)
        return found[0].read_bytes()


def unpacked(data: bytes) -> dict[str, bytes]:
    """Take the files out of the package, if it is the very one that is known here.

    Raises:
        InputError: it is not.
    """
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != INTEGRITY:
        raise InputError(f"This is not {PACKAGE} as its makers published it", hint=f"Get it with: npm pack {PACKAGE}")
    made = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for name in NAMES:
            member = archive.extractfile(f"package/dist/{name}")
            if member is not None:
                made[name] = member.read()
    return made


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="Give the package's .tgz.") from None
