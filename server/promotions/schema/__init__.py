"""The shape of a programme file as pydantic models: field names, types and bounds, all checked by field.

`values` are single values, `goods`, `conditions`, `effects` and `sections` what they stand in, `jsonschema`
the same for editors; further effects have their sections in server.promotions.effects. Checks that need more than one
field of one section are in server.promotions.load, where their messages can name the field at fault.
"""
