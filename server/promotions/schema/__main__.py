"""`python -m server.promotions.schema > docs/programme.schema.json` writes the published JSON Schema anew."""

import sys

from server.promotions.schema.jsonschema import json_schema_text

sys.stdout.write(json_schema_text())
