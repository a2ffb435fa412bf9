"""One process per job of a `-m` sweep."""
