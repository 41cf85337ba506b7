-- The records of all jobs in one Redis. Each call of these functions is one atomic change.
--
--   {joker}:job:ID       the job, packed with MessagePack
--   {joker}:key:KEY      the job that an idempotency key stands for, and its request's digest
--   {joker}:waiting      jobs that no worker has, by their deadline
--   {joker}:running      jobs that a worker has, by the end of its lease or their deadline
--   {joker}:workers      workers that are there, by the time they count as gone
--   {joker}:last_told    there since a job was last told, with its time to live as a clock
--   {joker}:sweep:V      there while the last sweep by workers of format V is recent
--   {joker}:messages:V   Celery's messages about waiting jobs of format V; see `joker.jobs.broker`
--   {joker}:server:NAME  a channel on which one server hears of the jobs that it watches
--
-- All keys share a hash tag, so a cluster holds them in one slot. Redis's clock is the only one,
-- so machines whose clocks differ agree. Requests, jokes and errors come in and go out as JSON; it
-- is put together here, never parsed. Fields of a record that this version does not know stay in
-- it; a record of a newer format is left to newer workers. VERSION, MOST_ATTEMPTS, MESSAGES and
-- MESSAGE, the format of a message, are defined in front of this text.

local WAITING, RUNNING, WORKERS = '{joker}:waiting', '{joker}:running', '{joker}:workers'
local TOLD, SWEEP = '{joker}:last_told', '{joker}:sweep:' .. VERSION
local REMEMBERED_SECONDS = 7 * 86400

local function job_key(id) return '{joker}:job:' .. id end
local function idempotency_key(key) return '{joker}:key:' .. key end
local function seconds(number) return string.format('%.6f', number) end
local function milliseconds(number) return math.ceil(number * 1000) end

local time
local function now()
  time = time or redis.call('TIME')
  return time[1] + time[2] / 1e6
end

local function load(id)
  local packed = redis.call('GET', job_key(id))
  return packed and cmsgpack.unpack(packed)
end

local function save(id, record, ...)
  return redis.call('SET', job_key(id), cmsgpack.pack(record), ...)
end

local function is_final(record) return record.state ~= 'PENDING' and record.state ~= 'STARTED' end
local function is_ours(record) return record.v <= VERSION end

-- Return a job as the JSON of `joker.jobs.job.Job`.
local function snapshot(id, record)
  return '{"id":"' .. id .. '","request":' .. record.request .. ',"request_id":' .. record.request_id
    .. ',"created_at":' .. seconds(record.created_at) .. ',"deadline_at":'
    .. seconds(record.deadline_at) .. ',"state":"' .. record.state .. '","attempts":'
    .. record.attempts .. ',"error":' .. record.error .. ',"ended":"' .. (record.ended or '')
    .. '"' .. (record.trace and ',"trace":"' .. record.trace .. '"' or '')
    .. ',"refused":' .. (record.refused or 'false')
    .. ',"told":[' .. table.concat(record.jokes, ',') .. ']}'
end

-- Tell the servers that watch a job.
local function announce(id, record, kind, data)
  for _, server in ipairs(record.watchers or {}) do
    redis.call('PUBLISH', '{joker}:server:' .. server, id .. ' ' .. kind .. ' ' .. data)
  end
end

-- Tell them all of it; return what they are told.
local function announce_record(id, record)
  local told = snapshot(id, record)
  announce(id, record, 'record', told)
  return told
end

-- Tell the workers about a waiting job; the message may get lost.
local function publish(id, record)
  record.published_at = now()
  local tag = id .. seconds(now())
  redis.call('LPUSH', MESSAGES, string.format(MESSAGE, id, id, record.tokens or 0, tag))
end

local function finish(id, record, state, error)
  redis.call('ZREM', record.state == 'STARTED' and RUNNING or WAITING, id)
  local keep = milliseconds(record.keep)
  if record.key ~= '' then redis.call('PEXPIRE', idempotency_key(record.key), keep) end
  record.ended, record.state, record.error = record.state, state, error
  announce_record(id, record)
  -- What only a job on its way needs is not kept with the result.
  for _, field in ipairs({'lease', 'key', 'keep', 'published_at', 'watchers', 'trace', 'quiet',
    'tokens'}) do
    record[field] = nil
  end
  save(id, record, 'PX', keep)
end

-- Fail a job of ours that is late; return whether it was.
local function fail_if_late(id, record)
  if not is_ours(record) or is_final(record) or record.deadline_at > now() then return false end
  finish(id, record, 'FAILURE', '"late"')
  return true
end

local function fail_late_jobs()
  for _, key in ipairs({WAITING, RUNNING}) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', seconds(now()))) do
      local record = load(id)
      -- A Redis that is set to evict may have dropped the record; the other jobs shall not suffer.
      if record then fail_if_late(id, record) else redis.call('ZREM', key, id) end
    end
  end
end

-- Return the record for the holder of a lease, or nil where it holds it no more.
local function held(id, lease)
  local record = load(id)
  return record and record.state == 'STARTED' and record.lease == lease and record or nil
end

local function run_until(id, record, lease_seconds)
  local ends = math.min(now() + lease_seconds, record.deadline_at)
  redis.call('ZADD', RUNNING, seconds(ends), id)
end

-- Let a job wait for the next attempt; say whether there is one.
local function wait_again(id, record)
  if record.attempts >= MOST_ATTEMPTS then
    finish(id, record, 'FAILURE', '"lost"')
    return false
  end
  redis.call('ZREM', RUNNING, id)
  redis.call('ZADD', WAITING, seconds(record.deadline_at), id)
  record.state, record.lease, record.jokes = 'PENDING', '', {}
  publish(id, record)
  save(id, record)
  announce_record(id, record)
  return true
end

local function add(jokes, more)
  for _, joke in ipairs(more) do table.insert(jokes, joke) end
end

local commands = {}

-- Return what became of it (new, same, full or conflict) and the job.
function commands.submit(id, server, request, request_id, key, digest, max_queue_size, deadline_seconds,
                         result_ttl_seconds, trace, tokens)
  if key ~= '' then
    local known = redis.call('GET', idempotency_key(key))
    if known then
      local other, its_digest = string.match(known, '^(%S+) (%S+)$')
      local record = load(other)
      if record then
        if its_digest ~= digest then return {'conflict', ''} end
        fail_if_late(other, record)
        return {'same', snapshot(other, record)}
      end
    end
  end
  local room = tonumber(max_queue_size)
  if redis.call('ZCARD', WAITING) >= room then
    fail_late_jobs()
    -- The same id comes twice where an answer was lost on the way and the call is made again.
    local record = load(id)
    if record then return {'same', snapshot(id, record)} end
    if redis.call('ZCARD', WAITING) >= room then return {'full', ''} end
  end
  local record = {v = VERSION, request = request, request_id = request_id, state = 'PENDING',
    created_at = now(), deadline_at = now() + deadline_seconds, published_at = now(), attempts = 0,
    error = 'null', jokes = {}, lease = '', key = key, keep = tonumber(result_ttl_seconds),
    watchers = {server}, quiet = true, trace = trace ~= '' and trace or nil,
    tokens = tonumber(tokens)}
  if not save(id, record, 'NX') then return {'same', snapshot(id, load(id))} end
  publish(id, record)
  redis.call('ZADD', WAITING, seconds(record.deadline_at), id)
  if key ~= '' then redis.call('SET', idempotency_key(key), id .. ' ' .. digest) end
  return {'new', snapshot(id, record)}
end

-- Return a job and the seconds until its deadline, and let a server hear of it from now on, and of
-- its drafts if it asks for them with 1.
function commands.watch(id, server, drafts)
  local record = load(id)
  if not record then return false end
  if fail_if_late(id, record) or is_final(record) then
    return {snapshot(id, record), '0'}
  end
  local known = false
  for _, name in ipairs(record.watchers) do known = known or name == server end
  if not known then table.insert(record.watchers, server) end
  local heard = drafts == '1' and record.quiet
  if heard then record.quiet = nil end
  if heard or not known then save(id, record) end
  -- Only newer workers and servers fail a newer job that is late: it is not asked for all the time.
  local soonest = is_ours(record) and 0 or 1
  return {snapshot(id, record), seconds(math.max(record.deadline_at - now(), soonest))}
end

function commands.read(id)
  local record = load(id)
  if not record then return false end
  fail_if_late(id, record)
  return snapshot(id, record)
end

function commands.cancel(id)
  local record = load(id)
  if not record then return false end
  if not fail_if_late(id, record) and not is_final(record) then
    finish(id, record, 'REVOKED', 'null')
  end
  return snapshot(id, record)
end

function commands.leave(worker) redis.call('ZREM', WORKERS, worker) end

-- Return how many jobs wait, how many are in hand, how many workers are there, and for how many
-- seconds none has told a job.
function commands.stats()
  fail_late_jobs()
  redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', seconds(now()))
  local left = redis.call('PTTL', TOLD)
  return {redis.call('ZCARD', WAITING), redis.call('ZCARD', RUNNING), redis.call('ZCARD', WORKERS),
    left >= 0 and seconds(REMEMBERED_SECONDS - left / 1000)}
end

-- Give a waiting job to the holder of a new lease; return the job, or false where none waits.
function commands.claim(id, lease, lease_seconds)
  local record = load(id)
  if not record or not is_ours(record) then return false end
  if record.state == 'STARTED' and record.lease == lease then return snapshot(id, record) end
  if record.state ~= 'PENDING' or fail_if_late(id, record) then return false end
  record.state, record.lease, record.attempts = 'STARTED', lease, record.attempts + 1
  save(id, record)
  redis.call('ZREM', WAITING, id)
  run_until(id, record, lease_seconds)
  return announce_record(id, record)
end

-- Say that a worker is there, and renew its leases, given as pairs of job and lease; return the
-- leases that it holds no more.
function commands.attend(worker, lease_seconds, ...)
  redis.call('ZADD', WORKERS, seconds(now() + lease_seconds), worker)
  local pairs, lost = {...}, {}
  for i = 1, #pairs, 2 do
    local record = held(pairs[i], pairs[i + 1])
    if record and not fail_if_late(pairs[i], record) then
      run_until(pairs[i], record, lease_seconds)
    else
      table.insert(lost, pairs[i + 1])
    end
  end
  return lost
end

-- The following are for a lease's holder; they return 1, or false where it holds it no more.

-- Show the servers a draft; return 0 while none of them reads drafts.
function commands.tell_part(id, lease, part)
  local record = held(id, lease)
  if not record then return false end
  if record.quiet then return 0 end
  announce(id, record, 'partial', '{"attempt":' .. record.attempts .. ',"event":' .. part .. '}')
  return 1
end

-- Add a joke, as the JSON of `JokeEvent`, behind so many that were told before.
function commands.tell_joke(id, lease, told, joke)
  local record = held(id, lease)
  if not record then return false end
  -- Told again where an answer was lost on the way: it makes no second event.
  if #record.jokes == tonumber(told) then
    table.insert(record.jokes, joke)
    save(id, record)
    announce_record(id, record)
  end
  return 1
end

-- Finish a job with the jokes that were not told before.
function commands.succeed(id, lease, ...)
  local record = held(id, lease)
  if not record then return false end
  add(record.jokes, {...})
  finish(id, record, 'SUCCESS', 'null')
  redis.call('SET', TOLD, '', 'EX', REMEMBERED_SECONDS)
  return 1
end

function commands.fail(id, lease, error, refused, ...)
  local record = held(id, lease)
  if not record then return false end
  add(record.jokes, {...})
  record.refused = refused
  finish(id, record, 'FAILURE', error)
  return 1
end

-- Give a job back to wait again.
function commands.give_back(id, lease)
  local record = held(id, lease)
  if not record then return false end
  wait_again(id, record)
  return 1
end

-- Publish jobs again, and return them: their lease has ended, or they wait for longer than a lease
-- and no message about them is there. Of workers of one format that sweep at the same time, one
-- does.
function commands.sweep(pause_seconds, lease_seconds)
  if not redis.call('SET', SWEEP, '1', 'NX', 'PX', milliseconds(pause_seconds)) then return {} end
  fail_late_jobs()
  local ids = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', RUNNING, '-inf', seconds(now()))) do
    local record = load(id)
    if is_ours(record) and wait_again(id, record) then table.insert(ids, id) end
  end
  if redis.call('ZCARD', WAITING) <= redis.call('LLEN', MESSAGES) then return ids end
  local there = {}
  for _, message in ipairs(redis.call('LRANGE', MESSAGES, 0, -1)) do
    there[string.match(message, '"id":%s*"([^"]+)"') or ''] = true
  end
  for _, id in ipairs(redis.call('ZRANGE', WAITING, 0, -1)) do
    if not there[id] then
      local record = load(id)
      if not record then redis.call('ZREM', WAITING, id)
      elseif is_ours(record) and record.published_at + lease_seconds < now() then
        publish(id, record)
        save(id, record)
        table.insert(ids, id)
      end
    end
  end
  return ids
end

-- Run the command that the first argument names; `joker.jobs.broker` makes functions of it.
local function run(_, arguments)
  time = nil
  return commands[arguments[1]](unpack(arguments, 2))
end
