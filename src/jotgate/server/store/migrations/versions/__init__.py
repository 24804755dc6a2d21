"""One file per revision, oldest first; their names are listed in `store.schema.REVISIONS`."""
