-- What workers call has a version in its name, so that workers of two releases write the same books during an upgrade.
--
-- From here on: a function that a released worker calls, what it calls itself, and the types of its rows never change
-- and stay for as long as that release may run. A change is a new one with the next number, beside the old one. The
-- functions without a number are those of release 0.4; with write_more, write_uses, the row types and the domains, which
-- both use, they count as the first. `schema.sql` shows the text.

-- Copies, word for word: what the workers of release 0.4 call stays untouched.
DO $$
DECLARE
    called text;
BEGIN
    FOREACH called IN ARRAY ARRAY['ledger.read_batch', 'ledger.write_batch'] LOOP
        EXECUTE replace(pg_get_functiondef(called::regproc), 'FUNCTION ' || called || '(', 'FUNCTION ' || called || '_v1(');
    END LOOP;
END $$;
