"""A checkout as it lies on a node, with an environment that borrows the packages of the one that runs the tests."""

import hashlib
import sys
import sysconfig
from pathlib import Path

RAY = """#!{python}
import sys
from ray.scripts.scripts import main
sys.argv[0] = "ray"
sys.exit(main())
"""


def borrow_environment(checkout: Path) -> Path:
    """`checkout`/.venv: its own Python and `ray`, this environment's packages, the checkout itself as if it were
    installed, editable. Returns its bin."""
    venv = checkout / ".venv"
    packages = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "borrowed.pth").write_text(f"{checkout}\n{sysconfig.get_path('purelib')}\n")
    (venv / "pyvenv.cfg").write_text(f"home = {Path(sys._base_executable).parent}\n")
    (venv / "bin").mkdir()
    for name in ("python", "python3"):
        (venv / "bin" / name).symlink_to(sys._base_executable)
    (venv / "bin" / "ray").write_text(RAY.format(python=venv / "bin" / "python"))
    (venv / "bin" / "ray").chmod(0o755)
    return venv / "bin"


def stamp_environment(checkout: Path) -> None:
    """What scripts/bootstrap leaves behind once it has installed: a second run of it then installs nothing."""
    files = [(checkout / name).read_bytes() for name in ("requirements.lock", "pyproject.toml")]
    parts = b"\0".join([*files, str(checkout).encode(), sys.version.encode()])
    (checkout / ".venv" / "installed").write_text(hashlib.sha256(parts).hexdigest())
