-- The records of all jobs in one Redis. Each call of this script is one atomic change.
--
--   joker:job:ID      hash: the job's fields, and one field for the text of each joke told
--   joker:events:ID   stream: what happened to the job
--   joker:key:KEY     hash: the job that an idempotency key stands for, and its request's digest
--   joker:waiting     jobs that no worker has, by the time they were last published
--   joker:running     jobs that a worker has, by the time its lease ends
--   joker:deadlines   jobs that are not final, by their deadline
--   joker:workers     workers that are there, by the time they count as gone
--   joker:told        when a job was last told
--   joker:sweep       there while the last sweep is recent
--
-- Redis's clock is the only one, so machines whose clocks differ agree. Requests, jokes and
-- sentences come in and go out as JSON; it is put together here, never parsed. Keys are made from
-- ids, so this needs one Redis and no cluster.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

local function job_key(id) return 'joker:job:' .. id end
local function events_key(id) return 'joker:events:' .. id end
local function idempotency_key(key) return 'joker:key:' .. key end
local function seconds(number) return string.format('%.6f', number) end

local function get(id, field) return redis.call('HGET', job_key(id), field) end
local function note(id, name, data)
  redis.call('XADD', events_key(id), '*', 'name', name, 'data', data)
end

-- Return a job as the JSON of `Job.to_dict`, or false where there is none.
local function snapshot(id)
  local flat = redis.call('HGETALL', job_key(id))
  if #flat == 0 then return false end
  local fields, indexes, jokes = {}, {}, {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
    local index = string.match(flat[i], '^joke:(%d+)$')
    if index then table.insert(indexes, tonumber(index)) end
  end
  table.sort(indexes)
  for _, index in ipairs(indexes) do table.insert(jokes, fields['joke:' .. index]) end
  return '{"id":"' .. id .. '","request":' .. fields.request .. ',"state":"' .. fields.state
    .. '","created_at":' .. fields.created_at .. ',"deadline_at":' .. fields.deadline_at
    .. ',"attempts":' .. fields.attempts .. ',"jokes":[' .. table.concat(jokes, ',')
    .. '],"error":' .. fields.error .. ',"request_id":' .. fields.request_id .. '}'
end

local function forget_jokes(id)
  for _, field in ipairs(redis.call('HKEYS', job_key(id))) do
    if string.find(field, '^joke:') then redis.call('HDEL', job_key(id), field) end
  end
end

local function is_final(id)
  local state = get(id, 'state')
  return state ~= 'PENDING' and state ~= 'STARTED'
end

local function holds(id, lease)
  return get(id, 'state') == 'STARTED' and get(id, 'lease') == lease
end

local function finish(id, state, error)
  for _, set in ipairs({'waiting', 'running', 'deadlines'}) do
    redis.call('ZREM', 'joker:' .. set, id)
  end
  -- A Redis that is set to evict may have dropped the record; the other jobs shall not suffer.
  if redis.call('EXISTS', job_key(id)) == 0 then return end
  redis.call('HSET', job_key(id), 'state', state, 'error', error)
  -- The jokes stand in the record: text on the way to them is of no use any more.
  for _, entry in ipairs(redis.call('XRANGE', events_key(id), '-', '+')) do
    if entry[2][2] == 'partial' then redis.call('XDEL', events_key(id), entry[1]) end
  end
  note(id, 'state', snapshot(id))
  local keep = math.ceil(get(id, 'result_ttl_seconds') * 1000)
  redis.call('PEXPIRE', job_key(id), keep)
  redis.call('PEXPIRE', events_key(id), keep)
  local key = get(id, 'key')
  if key ~= '' then redis.call('PEXPIRE', idempotency_key(key), keep) end
end

-- Let a job wait for the next attempt; say whether there is one.
local function wait_again(id)
  redis.call('ZREM', 'joker:running', id)
  local attempts = get(id, 'attempts')
  if not attempts or tonumber(attempts) >= tonumber(get(id, 'most_attempts')) then
    finish(id, 'FAILURE', get(id, 'lost'))
    return false
  end
  forget_jokes(id)
  redis.call('HSET', job_key(id), 'state', 'PENDING', 'lease', '')
  redis.call('ZADD', 'joker:waiting', seconds(now), id)
  note(id, 'state', snapshot(id))
  return true
end

local function fail_late_jobs()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'joker:deadlines', '-inf', seconds(now))) do
    finish(id, 'FAILURE', get(id, 'late'))
  end
end

local commands = {}

-- Return what became of it (new, same, full or conflict) and the job.
function commands.submit(id, request, request_id, key, digest, late, lost, max_queue_size, most_attempts,
                         deadline_seconds, result_ttl_seconds)
  if key ~= '' then
    local known = redis.call('HMGET', idempotency_key(key), 'job', 'digest')
    local record = known[1] and snapshot(known[1])
    if record then
      if known[2] ~= digest then return {'conflict', ''} end
      return {'same', record}
    end
  end
  -- The same id comes twice where an answer was lost on the way and the call is made again.
  local record = snapshot(id)
  if record then return {'same', record} end
  if redis.call('ZCARD', 'joker:waiting') >= tonumber(max_queue_size) then return {'full', ''} end

  local deadline = seconds(now + deadline_seconds)
  redis.call('HSET', job_key(id), 'request', request, 'request_id', request_id, 'state', 'PENDING',
    'created_at', seconds(now), 'deadline_at', deadline, 'attempts', '0', 'error', 'null',
    'lease', '', 'key', key, 'late', late, 'lost', lost, 'most_attempts', most_attempts,
    'result_ttl_seconds', result_ttl_seconds)
  redis.call('ZADD', 'joker:waiting', seconds(now), id)
  redis.call('ZADD', 'joker:deadlines', deadline, id)
  if key ~= '' then
    redis.call('DEL', idempotency_key(key))
    redis.call('HSET', idempotency_key(key), 'job', id, 'digest', digest)
  end
  record = snapshot(id)
  note(id, 'state', record)
  return {'new', record}
end

function commands.read(id) return snapshot(id) end

function commands.cancel(id)
  if redis.call('EXISTS', job_key(id)) == 1 and not is_final(id) then
    finish(id, 'REVOKED', 'null')
  end
  return snapshot(id)
end

-- Say that a worker is there.
function commands.attend(worker, lease_seconds)
  redis.call('ZADD', 'joker:workers', seconds(now + lease_seconds), worker)
end

function commands.leave(worker) redis.call('ZREM', 'joker:workers', worker) end

-- Return how many jobs wait, how many are in hand, how many workers are there, and for how many
-- seconds none has told a job.
function commands.load()
  redis.call('ZREMRANGEBYSCORE', 'joker:workers', '-inf', seconds(now))
  local told = redis.call('GET', 'joker:told')
  return {redis.call('ZCARD', 'joker:waiting'), redis.call('ZCARD', 'joker:running'),
    redis.call('ZCARD', 'joker:workers'), told and seconds(now - told)}
end

-- Give a waiting job to the holder of a new lease; return the job, or false where none waits.
function commands.claim(id, lease, lease_seconds)
  if holds(id, lease) then return snapshot(id) end
  if get(id, 'state') ~= 'PENDING' then return false end
  redis.call('HINCRBY', job_key(id), 'attempts', 1)
  redis.call('HSET', job_key(id), 'state', 'STARTED', 'lease', lease)
  redis.call('ZREM', 'joker:waiting', id)
  redis.call('ZADD', 'joker:running', seconds(now + lease_seconds), id)
  local record = snapshot(id)
  note(id, 'state', record)
  return record
end

-- The following are for a lease's holder; they return 1, or false where it holds it no more.

function commands.renew(id, lease, lease_seconds)
  if not holds(id, lease) then return false end
  redis.call('ZADD', 'joker:running', seconds(now + lease_seconds), id)
  return 1
end

function commands.tell_part(id, lease, part)
  if not holds(id, lease) then return false end
  note(id, 'partial', part)
  return 1
end

function commands.tell_joke(id, lease, index, joke, event)
  if not holds(id, lease) then return false end
  -- Told again where an answer was lost on the way: it makes no second event.
  if redis.call('HSET', job_key(id), 'joke:' .. index, joke) == 1 then note(id, 'joke', event) end
  return 1
end

function commands.succeed(id, lease, ...)
  if not holds(id, lease) then return false end
  forget_jokes(id)
  for index, joke in ipairs({...}) do
    redis.call('HSET', job_key(id), 'joke:' .. (index - 1), joke)
  end
  finish(id, 'SUCCESS', 'null')
  redis.call('SET', 'joker:told', seconds(now))
  return 1
end

function commands.fail(id, lease, error)
  if not holds(id, lease) then return false end
  finish(id, 'FAILURE', error)
  return 1
end

-- Give a job back; return 1 where it is to be published again.
function commands.give_back(id, lease)
  return holds(id, lease) and wait_again(id) and 1
end

-- Return the jobs to publish again: their lease has ended, or nobody claimed them for long.
-- Of workers that sweep at the same time, one does.
function commands.sweep(pause_seconds, unclaimed_seconds)
  local pause = math.ceil(pause_seconds * 1000)
  if not redis.call('SET', 'joker:sweep', '1', 'NX', 'PX', pause) then return {} end
  local ids = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'joker:running', '-inf', seconds(now))) do
    if wait_again(id) then table.insert(ids, id) end
  end
  local unclaimed = seconds(now - unclaimed_seconds)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'joker:waiting', '-inf', unclaimed)) do
    redis.call('ZADD', 'joker:waiting', seconds(now), id)
    table.insert(ids, id)
  end
  return ids
end

fail_late_jobs()
return commands[ARGV[1]](unpack(ARGV, 2))
