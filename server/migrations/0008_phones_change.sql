-- A member who gets another phone number lets go of the old one, which its next owner may register.
GRANT DELETE ON server.member_identifier TO tallypoint_writer;
