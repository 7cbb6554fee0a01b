-- The first schema: what a SuperLink remembers, one row for each fact that cannot be derived.
-- `sum` is a checksum of the columns before it.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL,
    sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    key BLOB,
    online_until REAL NOT NULL,
    used INTEGER NOT NULL,
    sum INTEGER NOT NULL
) STRICT;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    place INTEGER NOT NULL,
    series INTEGER NOT NULL,
    federation TEXT NOT NULL,
    fab_id TEXT NOT NULL,
    fab_version TEXT NOT NULL,
    fab_hash BLOB NOT NULL,
    overrides BLOB NOT NULL,
    phase TEXT NOT NULL,
    sub_status TEXT NOT NULL,
    details TEXT NOT NULL,
    pending_at REAL NOT NULL,
    starting_at REAL,
    running_at REAL,
    finished_at REAL,
    options BLOB,
    context BLOB,
    lease_end REAL,
    sum INTEGER NOT NULL
) STRICT;

-- Flower's own SuperLink begins by making a table of this name if there is none, and fails now
-- instead of making its tables among these.
CREATE INDEX run ON runs (place);

CREATE TABLE tokens (
    token TEXT PRIMARY KEY,
    run INTEGER NOT NULL,
    issued_at REAL NOT NULL,
    spent INTEGER NOT NULL,
    sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE instructions (
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    arrival INTEGER NOT NULL,
    offered INTEGER NOT NULL,
    confirmed INTEGER NOT NULL,
    retired INTEGER NOT NULL,
    message_run INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    src INTEGER NOT NULL,
    dst INTEGER NOT NULL,
    reply_to TEXT NOT NULL,
    group_id TEXT NOT NULL,
    ttl REAL,
    message_type TEXT NOT NULL,
    created_at REAL NOT NULL,
    content BLOB,
    error_code INTEGER,
    error_reason TEXT,
    sum INTEGER NOT NULL,
    PRIMARY KEY (run, name)
) STRICT;

-- `of_nothing`: what it replies to is no instruction.
CREATE TABLE replies (
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    of_nothing INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    synthetic INTEGER NOT NULL,
    message_run INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    src INTEGER NOT NULL,
    dst INTEGER NOT NULL,
    reply_to TEXT NOT NULL,
    group_id TEXT NOT NULL,
    ttl REAL,
    message_type TEXT NOT NULL,
    created_at REAL NOT NULL,
    content BLOB,
    error_code INTEGER,
    error_reason TEXT,
    sum INTEGER NOT NULL,
    PRIMARY KEY (run, name, of_nothing)
) STRICT;

CREATE TABLE unwanted (
    run INTEGER NOT NULL,
    root BLOB NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (run, root)
) STRICT, WITHOUT ROWID;

CREATE TABLE abandoned (
    run INTEGER NOT NULL,
    node INTEGER NOT NULL,
    root BLOB NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (run, node, root)
) STRICT, WITHOUT ROWID;

-- `children`: the ids of an object's children, 32 bytes each.
CREATE TABLE objects (
    id BLOB PRIMARY KEY,
    children BLOB NOT NULL,
    sum INTEGER NOT NULL
) STRICT;

CREATE TABLE holds (
    run INTEGER NOT NULL,
    object BLOB NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (run, object)
) STRICT, WITHOUT ROWID;

-- The objects that have arrived. The bytes of large ones are in files; those here are judged by the
-- id, which is their hash, and are no part of the sum.
CREATE TABLE contents (
    object BLOB PRIMARY KEY,
    bytes INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    content BLOB
) STRICT;

-- The objects that went last because they were confirmed, whose senders may push them again.
CREATE TABLE gone (
    number INTEGER PRIMARY KEY,
    object BLOB NOT NULL,
    sum INTEGER NOT NULL
) STRICT;

CREATE TABLE logs (
    run INTEGER NOT NULL,
    time REAL NOT NULL,
    text TEXT NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (run, time)
) STRICT, WITHOUT ROWID;
