-- When workers are killed from outside faster than any commit comes through, many deaths say no more than one: that nothing
-- was completed in the time that it takes to find a worker dead. So a death counts only if its worker was still taking
-- jobs of the component when the death that counted before was known.

alter table component_death
    -- The last claim of its worker of a job of the component.
    add claimed_at timestamptz not null default now(),
    -- Workers of the version before note only what counts to them, as parts: `shared_by`.
    add counts     boolean     not null default true;
