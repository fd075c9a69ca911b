-- Buckets: what assets keep under keys from job to job. Only a commit writes here, in the transaction of the
-- materialization; a job that read what is not so any more writes nothing and runs again.

-- Versions of values and of sets of keys. They never come again, so that what was removed and written anew is not
-- mistaken for what was read.
-- Below 2^52: a guest whose numbers are doubles must get them whole, and the next bit marks an attempt's own writes.
create sequence bucket_version maxvalue 4503599627370495;

-- Whoever commits locks the buckets that it touches, in the order of their keys: for a share when it has only read, and
-- for itself when it writes. Their entries need no further lock.
create table bucket (
    tenant_id    text collate "C" not null references tenant,
    -- The pipeline whose resource it is; zeros for one that an operator registered, which all pipelines share.
    owner_id     uuid             not null,
    name         text collate "C" not null,
    -- Another one whenever a key comes or goes: what a listing has read.
    keys_version bigint           not null,
    -- What it holds, so that its bounds can be kept without counting.
    keys         bigint           not null,
    bytes        bigint           not null,
    primary key (tenant_id, owner_id, name),
    constraint bucket_holds_something_or_nothing check (keys >= 0 and bytes >= keys)
) with (fillfactor = 50);

create table bucket_entry (
    tenant_id text collate "C" not null,
    owner_id  uuid             not null,
    bucket    text collate "C" not null,
    key       text collate "C" not null,
    value     bytea            not null,
    version   bigint           not null default nextval('bucket_version'),
    primary key (tenant_id, owner_id, bucket, key),
    foreign key (tenant_id, owner_id, bucket) references bucket,
    constraint bucket_entry_key_is_bounded check (octet_length(key) between 1 and 1024),
    constraint bucket_entry_value_is_bounded check (octet_length(value) <= 1048576)
);
