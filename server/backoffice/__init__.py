"""The calls of the back office: members, stores, programmes and the ledger, for people and for other systems.

Each servicer is a plain object with one method a call, and each module has `ALLOWED`: the roles that reach each
call, by its name in the proto file.
"""
