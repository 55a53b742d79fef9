-- What banks' clearing files say, line by line.

-- One file under one mapping. Its lines count once it is complete; a file that was read again under
-- another mapping is replaced.
create table clearing_files (
    file_id uuid primary key,
    bank text not null,
    sha256 text not null,
    mapping text not null,
    name text not null,
    last_line bigint not null,
    staged_to bigint not null,
    state text not null check (state in ('staging', 'complete', 'replaced')),
    opened_at timestamptz not null
);
create index clearing_files_bank on clearing_files (bank, sha256);

-- A line is known by its number in its file, so that staging it twice is staging it once.
create table clearing_lines (
    file_id uuid not null,
    line bigint not null,
    reference uuid,
    kind text not null
        check (kind in ('capture', 'force_post', 'refund', 'reversal', 'declined')),
    transaction_id uuid,
    named_by text check (named_by in ('id', 'key')),
    shopper_id bigint,
    code text,
    merchant text,
    network_id text,
    terminal text,
    amount bigint not null check (amount >= 0),
    currency text not null,
    cleared_at timestamptz not null,
    primary key (file_id, line)
);
create index clearing_lines_payment on clearing_lines (transaction_id)
    where transaction_id is not null;
create index clearing_lines_shopper on clearing_lines (shopper_id) where shopper_id is not null;

create index conflicts_payment on conflicts (transaction_id);
