"""The loop that closes: users are served, decisions and rewards logged, joined, learnt from, judged and released."""
