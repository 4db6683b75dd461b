-- Workers keep members' records in memory; a change of segments or offers, which no entry tells of, raises this version.
INSERT INTO server.config_version (topic, version) VALUES ('audience', 0);
