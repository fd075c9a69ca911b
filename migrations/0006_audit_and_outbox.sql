-- What others learn of what happened. Both are written in the transaction that they tell of.

create table audit (
    tenant_id  text collate "C" not null references tenant,
    sequence   bigint      generated always as identity,
    actor      text        not null,
    action     text        not null,
    subject    text        not null,
    details    jsonb       not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, sequence)
);

create function refuse_change_of_audit() returns trigger language plpgsql as $$
begin
    raise exception 'audit is append-only' using errcode = 'insufficient_privilege';
end
$$;

create trigger audit_is_append_only before update or delete on audit
    for each row execute function refuse_change_of_audit();
create trigger audit_is_not_truncated before truncate on audit
    for each statement execute function refuse_change_of_audit();

-- Read by cursor, by whoever tells the outside.
create table outbox (
    tenant_id  text collate "C" not null references tenant,
    sequence   bigint      generated always as identity,
    topic      text        not null,
    payload    jsonb       not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, sequence)
);
