-- The rest of a lease besides its token: how long it was claimed for, in milliseconds, by
-- which process, and whether it was used. Older leases last as long as their job's policy
-- says, and count as used.
ALTER TABLE jobs ADD COLUMN lease_for  INTEGER;
ALTER TABLE jobs ADD COLUMN lease_used INTEGER NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN process    BLOB;
