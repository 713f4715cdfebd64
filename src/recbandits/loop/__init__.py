"""The loop that closes: users are served, decisions and rewards are logged, joined, learnt from, judged and released."""
