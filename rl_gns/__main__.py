"""`python -m rl_gns`: the same as the `rl-gns` command, in the form that cluster entrypoints need."""

from rl_gns.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
