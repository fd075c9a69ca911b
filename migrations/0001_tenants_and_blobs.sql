-- The isolation boundary, and the bytes that everything else names.
--
-- Every table's key starts with the tenant, so that a store can be split by tenant without a change of code, and so
-- that no query can be written that forgets whose rows it reads. Names and keys compare bytewise (collate "C"):
-- cheaper than a language's rules, and the same on every server.

create table tenant (
    tenant_id  text collate "C" primary key,
    created_at timestamptz not null default now(),
    constraint tenant_id_shape check (tenant_id ~ '^[a-z][a-z0-9_-]{0,62}$')
);

insert into tenant (tenant_id) values ('default');

-- A blob is named by its digest and never changes. Small ones are here; `bytes` is null where the blob store has them.
create table blob (
    tenant_id  text collate "C" not null references tenant,
    digest     bytea       not null,
    size_bytes bigint      not null,
    bytes      bytea,
    created_at timestamptz not null default now(),
    primary key (tenant_id, digest),
    constraint blob_digest_is_sha256 check (octet_length(digest) = 32),
    constraint blob_size_is_true check (size_bytes >= 0 and (bytes is null or octet_length(bytes) = size_bytes))
);
