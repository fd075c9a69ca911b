-- What each worker takes jobs from, so that a job can be told from one that waits for ever because no worker serves it.

alter table worker
    -- The queues that it serves; with tags, null is all of them.
    add queues text[] collate "C",
    -- What it has that jobs may ask for. Null of a worker of the version before, of which nothing is known.
    add tags   text[] collate "C";
