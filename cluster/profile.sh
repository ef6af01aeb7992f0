# Sourced at login on every node: the checkout's environment first on the PATH, authentication, absolute run roots, time to end.
export RL_GNS_CHECKOUT="${RL_GNS_CHECKOUT:-$HOME/rl-gns}"
export RL_GNS_RUNS="${RL_GNS_RUNS:-$HOME/rl-gns-runs}"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"
export RAY_USAGE_STATS_ENABLED=0
export RAY_JOB_STOP_WAIT_TIME_S=15 # read on the head: a driver takes up to 10 s to end a run in order, Ray's own wait is 3
export PATH="$RL_GNS_CHECKOUT/.venv/bin:$PATH"
