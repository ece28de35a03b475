-- Conversations are listed in the order of their last messages. Each has a row in that order
-- and a row that points there, see package conversation. The id of both is the time of the
-- conversation's last task, as the first ten characters of its id, and the conversation. A
-- conversation without a readable task has the time of its own id.
CREATE TEMP TABLE places AS
  SELECT tenant, usr, id, body,
         CASE WHEN task LIKE 'job\_%' ESCAPE '\' AND length(task) = 30 THEN substr(task, 5, 10) ELSE substr(id, 6, 10) END || '_' || id AS place
  FROM (SELECT *, CASE WHEN json_valid(message) THEN json_extract(message, '$.task') END AS task
        FROM (SELECT c.*, (SELECT CAST(m.body AS TEXT) FROM records m
                           WHERE m.tenant = c.tenant AND m.usr = c.usr AND m.kind = 'message' AND m.parent = c.id
                           ORDER BY m.id DESC LIMIT 1) AS message
              FROM records c WHERE c.kind = 'conversation'));
INSERT INTO records (tenant, usr, kind, parent, id, body)
  SELECT tenant, usr, 'conversation_place', '', place, body FROM places;
INSERT INTO records (tenant, usr, kind, parent, id, body)
  SELECT tenant, usr, 'conversation_pointer', id, place, CAST('{}' AS BLOB) FROM places;
DROP TABLE places;
