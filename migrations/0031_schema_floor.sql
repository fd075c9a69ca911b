-- Which versions of flowstone may work with these tables: those that know of this migration. One that knows of it and not
-- of later ones starts beside newer ones, as when a process is started again in the middle of an upgrade.
--
-- A migration that takes away what the version before still needs raises it to the last migration of the oldest version
-- that can do without.

create table schema_floor (
    -- There is one row.
    only_row      boolean primary key default true,
    migration     bigint  not null,
    constraint schema_floor_is_one_row check (only_row)
);

insert into schema_floor (migration) values (31);
