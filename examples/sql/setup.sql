-- The shop of this example, as its owner makes it: tables, two roles that may do exactly what one asset each does, and
-- for each of them a login that may become that role and nothing else.

create schema shop;
create table shop.orders (id bigint primary key, day date not null, total numeric(10, 2) not null);
create table shop.sums (day date primary key, orders bigint not null, total numeric(12, 2) not null);
insert into shop.orders
select n, date '2024-01-01' + (n % 3)::int, n * 1.25 from generate_series(1, 300) n;

create role shop_reader nologin;
grant usage on schema shop to shop_reader;
grant select on shop.orders to shop_reader;

create role shop_writer nologin;
grant usage on schema shop to shop_writer;
grant select, insert, update on shop.sums to shop_writer;

create role shop_reader_login login noinherit password 'reader';
create role shop_writer_login login noinherit password 'writer';
grant shop_reader to shop_reader_login;
grant shop_writer to shop_writer_login;

-- Which attempt was applied last to each partition of an asset that writes: the login's, never the role's.
create table public.flowstone_applied (
    asset_id      uuid        not null,
    partition_key text        not null,
    attempt_id    uuid        not null,
    applied_at    timestamptz not null default now(),
    primary key (asset_id, partition_key)
);
grant select, insert, update on public.flowstone_applied to shop_writer_login;
