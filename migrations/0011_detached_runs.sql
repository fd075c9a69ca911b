-- A run that nobody waits for: whoever submitted it has gone, and any worker works it off. Its owner is null; a run with
-- an owner ends with that process, as before.

alter table run alter column owner_id drop not null;
