"""Learning in torch: the network, PPO, returns, per-group gradients, and the learner that joins them."""
