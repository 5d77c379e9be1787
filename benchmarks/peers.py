"""Make the environments of the peers: python -m benchmarks.peers [NAME…]; `make bench` measures those that are there.

They are kept outside of the checkout, in $KETCH_PEERS (~/.cache/ketch-bench), one for each peer, made by uv.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

MODELS: Final = ("scikit-learn==1.9.1", "numpy==2.4.6", "scipy==1.17.1", "joblib==1.6.0", "pandas==3.1.1")
COMPLETE: Final = "complete"  # the file that says what an environment was made with
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "granian": ("granian==2.8.7",),
    "fastapi": ("fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
    "mosec": ("mosec==0.9.8",),
    "vetiver": ("vetiver==0.2.6",),
    "litserve": ("litserve==0.2.19",),
    "bentoml": ("bentoml==1.4.39",),
    "mlserver": ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22"),
    "mlflow": ("mlflow==3.17.2",),
    "ray": ("ray[serve]==2.60.0", "pyarrow==26.0.1"),
}


def home() -> Path:
    """Give the folder of the environments."""
    return Path(os.environ.get("KETCH_PEERS") or Path.home() / ".cache" / "ketch-bench")


def programs(peer: str) -> Path | None:
    """Give the folder of a peer's programs, if its environment is complete and of these versions."""
    folder = home() / peer
    made = folder / COMPLETE
    return folder / "bin" if made.is_file() and made.read_text("utf-8") == packages(peer) else None


def packages(peer: str) -> str:
    """Give the requirements of one environment, a line each."""
    return "".join(f"{each}\n" for each in (*MODELS, *PACKAGES[peer]))


def make(peer: str) -> None:
    """Make one environment anew."""
    from uv import find_uv_bin

    folder = home() / peer
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    wanted = packages(peer)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *wanted.splitlines()], check=True)
    (folder / COMPLETE).write_text(wanted, "utf-8")


def main() -> int:
    """Make what is asked for, or all that is lacking; one that fails does not stop the others."""
    failed = []
    for name in sys.argv[1:] or PACKAGES:
        try:
            if sys.argv[1:] or programs(name) is None:
                make(name)
        except subprocess.CalledProcessError as reason:
            failed.append(f"{name}: {reason}")
        else:
            print(f"{name}: ready", flush=True)
    print("\n".join(failed) or f"all in {home()}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
