"""One file per way to get a token. A source fetches and judges one reply; when to fetch is the holder's."""
