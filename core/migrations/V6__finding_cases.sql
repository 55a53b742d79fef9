-- Findings that outlive the run that made them: whose they are, what became of them, and who did what.
-- (`findings` keeps what each run found, as it found it.)

create table finding_cases (
    case_id uuid primary key,
    kind text not null,
    bank text,
    transaction_id uuid,
    shopper_id bigint,
    subject text not null,
    detail text not null,
    amount bigint not null,
    currency text,
    occurred_at timestamptz not null,
    facts text not null,
    state text not null check (state in ('open', 'assigned', 'resolved', 'written_off')),
    owner text,
    found_at timestamptz not null
);

-- What happened to a case, in the order of its steps.
create table finding_events (
    case_id uuid not null,
    step bigint not null,
    acted_at timestamptz not null,
    actor text not null,
    action text not null,
    owner text,
    reason text not null,
    primary key (case_id, step)
);
