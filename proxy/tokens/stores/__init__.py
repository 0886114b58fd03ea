"""Where a record is kept: a store is what the users of one token source share."""
