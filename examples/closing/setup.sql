-- The shop of this example, as its owner makes it: a table, and a login that may read it and nothing else.

create schema shop;
create table shop.orders (
    id       bigint         primary key,
    day      date           not null,
    customer text           not null,
    total    numeric(10, 2) not null
);
insert into shop.orders values
    (1, '2024-01-01', 'Ada', 10.00), (2, '2024-01-01', 'Bob', 2.50),
    (3, '2024-01-02', 'Ada', 1.25),
    (4, '2024-01-03', 'Cyd', 100.00), (5, '2024-01-03', 'Bob', 0.25);

create role shop_login login noinherit password 'reader';
grant usage on schema shop to shop_login;
grant select on shop.orders to shop_login;
