"""The rows of the proof table of the token holder, one file a theme. `bench/prove_token.py` runs them."""
